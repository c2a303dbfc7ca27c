"""What every class of ``vqkernels.compat`` promises, whichever library it stands in for."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from compat.stand_ins import STAND_INS, StandIn
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import _recognise

NAMES = sorted(STAND_INS)
# Draws its codes in evaluation too, as theirs does.
STEADY = [name for name in NAMES if not name.endswith("GumbelQuantize")]
# One of their attributes is a function, or a flag where ours has an option of that name.
OPAQUE = ("EMAVectorQuantizer", "VectorQuantize", "ResidualVQ", "GroupedResidualVQ")
# torch's old weight_norm leaves a result of its computation in the module, which cannot be copied.
UNCOPIED = ("dac.VectorQuantize", "dac.ResidualVectorQuantize")


def _made(name: str) -> tuple[nn.Module, Tensor, StandIn]:
    torch.manual_seed(0)
    stand_in = STAND_INS[name]
    return stand_in.make(), torch.randn(stand_in.shape), stand_in


def _leaves(out: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(out if isinstance(out, dict) else (out,))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _assert_equal(one: Any, other: Any) -> None:
    for first, second in zip(_leaves(one), _leaves(other), strict=True):
        assert torch.equal(first, second)


def _train(module: nn.Module, x: Tensor, stand_in: StandIn) -> None:
    """A step, if the module has one."""
    found = _leaves(stand_in.call(module.train(), x.clone().requires_grad_()))
    learnt = [leaf for leaf in found if leaf.requires_grad]
    if learnt:
        torch.autograd.backward(learnt, [torch.ones_like(leaf) for leaf in learnt])


def test_the_table_has_every_class() -> None:
    known = {f"{kind.__module__}.{kind.__name__}" for kind in _recognise._peers()}
    shown = {f"{type(STAND_INS[name].make()).__module__}.{name.split('.')[-1]}" for name in NAMES}
    assert shown == known


@pytest.mark.parametrize(
    "name",
    [n for n in STEADY if not n.endswith(OPAQUE) or n.startswith("vqkernels.compat.dac")],
)
def test_its_attributes_say_how_to_make_it(name: str) -> None:
    """They are what ``convert`` reads off theirs, so ours have them under the same names."""
    module, x, stand_in = _made(name)
    arguments = type(module).arguments_of(module)
    other = type(module)(**arguments)
    other.load_state_dict(module.state_dict())
    _assert_equal(stand_in.call(other.eval(), x), stand_in.call(module.eval(), x))


@pytest.mark.parametrize("name", STEADY)
def test_evaluation_changes_no_state(name: str) -> None:
    module, x, stand_in = _made(name)
    module.eval()
    before = copy.deepcopy(module.state_dict())
    first = stand_in.call(module, x)
    _assert_equal(stand_in.call(module, x), first)
    _assert_equal(list(module.state_dict().values()), list(before.values()))


@pytest.mark.parametrize("name", STEADY)
def test_copies_pickles_and_checkpoints_of_a_trained_one_evaluate_alike(name: str) -> None:
    module, x, stand_in = _made(name)
    _train(module, x, stand_in)
    fresh = stand_in.make()
    fresh.load_state_dict(module.state_dict())
    expected = stand_in.call(module.eval(), x)
    copies = [fresh.eval()]
    if not name.endswith(UNCOPIED):
        copies += [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    for other in copies:
        _assert_equal(stand_in.call(other, x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_width_is_refused_before_anything_changes(name: str) -> None:
    module, _, stand_in = _made(name)
    before = copy.deepcopy(module.state_dict())
    bad = torch.randn([size + 1 if size == 4 else size for size in stand_in.shape])
    with pytest.raises((ValueError, RuntimeError)):
        stand_in.call(module.train(), bad)
    _assert_equal(list(module.state_dict().values()), list(before.values()))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_no_business_of_convert_and_has_no_other_class(name: str) -> None:
    module, _, _ = _made(name)
    owner = nn.Sequential(module)
    assert not len(vq.convert(owner))
    (entry,) = vq.revert(owner).left
    assert entry.path == "0"
