"""Whether two modules do the same: found out by letting copies of both do it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vqkernels.compat._peer import Peer

# Two right float32 implementations differ by roundings, two different ones by far more.
_RELATIVE = 1e-3
_SEED = 0


def difference(theirs: nn.Module, ours: Peer) -> str | None:
    """Where the two differ in a training step and then in evaluation; None where they agree.

    Compared are the structure, shapes and values of what they return, the gradients, and the
    state_dict after the step. Neither module changes.
    """
    try:
        x = ours.probe_input().detach().cpu()
        first, second = (copy.deepcopy(module).cpu() for module in (theirs, ours))
    except Exception as error:  # whatever a module of unknown origin raises is an answer
        return f"it cannot be tried: {error}"
    for training in (True, False):
        found = _compare_calls(first.train(training), second.train(training), x)
        if found is not None:
            return f"{found} in {'training' if training else 'evaluation'}"
    return None


def _compare_calls(theirs: nn.Module, ours: nn.Module, x: Tensor) -> str | None:
    results = []
    for module in (theirs, ours):
        try:
            results.append(_call(module, x))
        except Exception as error:  # as above
            whose = "its" if module is theirs else "our"
            return f"{whose} forward raises {type(error).__name__}: {error}"
    (leaves, structure, gradients), (other_leaves, other_structure, other_gradients) = results
    if structure != other_structure:
        return f"what it returns is {structure}, not {other_structure}"
    for number, (leaf, other) in enumerate(zip(leaves, other_leaves, strict=True)):
        if not _same(leaf, other):
            return f"returned value {number} differs"
    for name, gradient in gradients.items():
        if not _same(gradient, other_gradients.get(name)):
            return f"the gradient of {name} differs"
    state = ours.state_dict()
    for name, value in theirs.state_dict().items():
        if not _same(value, state[name]):
            return f"{name} differs after a step"
    return None


def _call(module: nn.Module, x: Tensor) -> tuple[list[Any], Any, dict[str, Tensor | None]]:
    """What the module returns, and the gradients of a fixed function of it."""
    torch.manual_seed(_SEED)
    module.zero_grad()
    x = x.clone().requires_grad_()
    leaves, structure = pytree.tree_flatten(module(x))
    outputs = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    if outputs:
        weights = [torch.linspace(0.5, 1.5, leaf.numel()).view_as(leaf) for leaf in outputs]
        torch.autograd.backward(outputs, weights)
    gradients = {name: value.grad for name, value in module.named_parameters()}
    return leaves, structure, {"x": x.grad, **gradients}


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return _absent(one) and _absent(other) if one is not other else True
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = one.detach().double(), other.detach().double()
    scale = float(one.abs().nan_to_num(0.0, 0.0).max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=0.0, atol=_RELATIVE * scale, equal_nan=True)


def _absent(value: Any) -> bool:
    """No gradient, or one of zeros."""
    return value is None or (isinstance(value, Tensor) and not value.any())
