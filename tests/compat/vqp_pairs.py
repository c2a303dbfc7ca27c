"""A module of vector-quantize-pytorch and ours, side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import vector_quantize_pytorch as library
from compat import agreement
from torch import Tensor, nn

from vqkernels.compat import vector_quantize_pytorch as compat

Call = Callable[[nn.Module, Tensor], Any]


def pair(name: str, seed: int = 0, **options: Any) -> tuple[nn.Module, nn.Module]:
    """(ours, theirs) with one state, loaded strictly in both directions."""
    torch.manual_seed(seed)
    theirs, ours = getattr(library, name)(**options), getattr(compat, name)(**options)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def assert_same_step(ours: nn.Module, theirs: nn.Module, x: Tensor, call: Call) -> None:
    """Outputs, gradients and the state after a training step; then outputs in evaluation."""
    ours, theirs = copy.deepcopy(ours).train(), copy.deepcopy(theirs).train()
    one, grad, learnt = agreement.gradients(ours, x, call)
    other, their_grad, they_learnt = agreement.gradients(theirs, x, call)
    assert_same_output(one, other)
    agreement.assert_in_one_band(grad, their_grad)
    assert learnt.keys() == they_learnt.keys()
    for name, expected in they_learnt.items():
        assert (learnt[name] is None) == (expected is None), name
        if expected is not None:
            agreement.assert_in_one_band(learnt[name], expected)
    assert_same_state(ours, theirs)
    ours.eval()
    theirs.eval()
    assert_same_output(call(ours, x), call(theirs, x))


def assert_same_output(one: Any, other: Any) -> None:
    """The same structure, dtypes and integers, and values in one band."""
    assert len(one) == len(other)
    for ours, theirs in zip(leaves(one), leaves(other), strict=True):
        if theirs.is_floating_point():
            agreement.assert_in_one_band(ours, theirs)
        else:
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)


def assert_same_state(ours: nn.Module, theirs: nn.Module) -> None:
    state = ours.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    for name, expected in theirs.state_dict().items():
        assert state[name].dtype == expected.dtype
        if expected.is_floating_point():
            agreement.assert_in_one_band(state[name], expected)
        else:
            assert torch.equal(state[name], expected)


def leaves(out: Any) -> list[Tensor]:
    found = torch.utils._pytree.tree_leaves(tuple(out))
    return [leaf for leaf in found if isinstance(leaf, Tensor)]
