"""Whether two modules do the same: found out by letting copies of both do it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vqkernels.compat._carry import HOOKS
from vqkernels.compat._peer import Peer

# Two right float32 implementations differ by roundings, two different ones by far more.
_RELATIVE = 1e-3
_SEED = 0


def difference(theirs: nn.Module, ours: Peer) -> str | None:
    """Where the two differ in a training step and then in evaluation; None where they agree.

    Compared are the structure, shapes and values of what they return, the gradients of each of
    these, and the state_dict after the step. Neither module changes, and no hook is called.
    """
    try:
        x = ours.probe_input().detach().cpu()
        first, second = (_copy(module).cpu() for module in (theirs, ours))
    except Exception as error:  # whatever a module of unknown origin raises is an answer
        return f"it cannot be tried: {error}"
    for training in (True, False):
        found = _compare_calls(first.train(training), second.train(training), x)
        if found is not None:
            return f"{found} in {'training' if training else 'evaluation'}"
    return None


def _copy(module: nn.Module) -> nn.Module:
    """A copy without the hooks, which may tell somebody and may hold anything."""
    hooks = [vars(part)[name] for part in module.modules() for name in HOOKS]
    return copy.deepcopy(module, {id(those): OrderedDict() for those in hooks})


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
        return f"what it returns is {_shown(structure)}, not {_shown(other_structure)}"
    for number, (leaf, other) in enumerate(zip(leaves, other_leaves, strict=True)):
        if not _same(leaf, other):
            return f"returned value {number} differs"
    for (name, number), gradient in gradients.items():
        if not _same(gradient, other_gradients.get((name, number))):
            return f"the gradient of {name} differs"
    state = ours.state_dict()
    for name, value in theirs.state_dict().items():
        if not _same(value, state[name]):
            return f"{name} differs after a step"
    return None


Gradients = dict[tuple[str, int], Tensor | None]


@torch.enable_grad()
def _call(module: nn.Module, x: Tensor) -> tuple[list[Any], Any, Gradients]:
    """What the module returns, and the gradients of a fixed function of each value of it.

    By name and number of the value: what is straight-through is far larger than that of a loss.
    """
    torch.manual_seed(_SEED)
    x = x.clone().requires_grad_()
    leaves, structure = pytree.tree_flatten(module(x))
    learnt = {name: value for name, value in module.named_parameters() if value.requires_grad}
    inputs = {"x": x, **learnt}
    gradients: Gradients = {}
    for number, leaf in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not leaf.requires_grad:
            continue
        weight = torch.linspace(0.5, 1.5, leaf.numel()).view_as(leaf).to(leaf)
        found = torch.autograd.grad(
            leaf, list(inputs.values()), weight, retain_graph=True, allow_unused=True
        )
        gradients.update(zip([(name, number) for name in inputs], found, strict=True))
    return leaves, structure, gradients


def _shown(structure: Any) -> str:
    return " ".join(str(structure).split())


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
