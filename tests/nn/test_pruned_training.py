"""A module that leaves codes out trains as one that looks at all of them, bit for bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import cases
import forcing
import pytest
import torch
from backends import native_core
from torch import Tensor

import vqkernels as vq
from vqkernels import ops

pytestmark = pytest.mark.skipif(native_core() is None, reason="native is not built")

K, D, STEPS = 4096, 4, 6  # codes enough to be searched in cells
_Make = Callable[..., torch.nn.Module]
_Between = Callable[[torch.nn.Module, int], torch.nn.Module]


def _codes() -> Tensor:
    return cases.gaussian(1, K, D, seed=40)[1]


def _vector_quantizer(**options: object) -> vq.nn.VectorQuantizer:
    return vq.nn.VectorQuantizer(K, D, init=_codes(), channel_dim=-1, **options)


def _residual(**options: object) -> vq.nn.ResidualVQ:
    return vq.nn.ResidualVQ(lambda: _vector_quantizer(**options), 2)


def _batches() -> list[Tensor]:
    """Rows that wander off, so that the codes follow and a partition of them becomes old."""
    return [
        cases.gaussian(600, 1, D, seed=50 + step)[0] * 0.8**step + step for step in range(STEPS)
    ]


def _trained(
    how: str, make: _Make, between: _Between, **options: object
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """All that a few steps give, and the state that they leave."""
    found = []
    with forcing.pruning(how):
        module = make(**options)
        trained = list(module.parameters())
        optimizer = torch.optim.SGD(trained, lr=50.0) if trained else None
        for step, x in enumerate(_batches()):
            leaf = x.requires_grad_()
            out = module(leaf)
            (out.quantized.square().sum() + out.loss.sum()).backward()
            found += [out.quantized.detach(), out.indices, out.loss.detach(), leaf.grad]
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad()
            module = between(module, step)
            found.append(module.encode(x.detach()))
    return found, module.state_dict()


def _nothing(module: torch.nn.Module, step: int) -> torch.nn.Module:
    return module


def _evaluate(module: torch.nn.Module, step: int) -> torch.nn.Module:
    """Several searches while the codebook does not move."""
    module.eval()
    for _ in range(3):
        module.encode(_batches()[0])
    return module.train()


def _write(module: torch.nn.Module, step: int) -> torch.nn.Module:
    """Other codes altogether, in the same memory: what a partition was made for is gone."""
    with torch.no_grad():
        for name, value in (*module.named_buffers(), *module.named_parameters()):
            if name.endswith("codebook") and step % 2:
                value.copy_(value.flip(0) * -3.0)
    return module


def _collapse(module: torch.nn.Module, step: int) -> torch.nn.Module:
    """All codes move to a few places, so that most cells are empty or coincide."""
    with torch.no_grad():
        for name, value in (*module.named_buffers(), *module.named_parameters()):
            if name.endswith("codebook") and step == 1:
                value.copy_(value[torch.arange(K) % 3])
    return module


def _not_finite(module: torch.nn.Module, step: int) -> torch.nn.Module:
    with torch.no_grad():
        for name, value in (*module.named_buffers(), *module.named_parameters()):
            if name.endswith("codebook") and step == 2:
                value[::2, 1] = torch.nan
    return module


def _copied(module: torch.nn.Module, step: int) -> torch.nn.Module:
    return copy.deepcopy(module) if step % 2 else pickle.loads(pickle.dumps(module))


def _loaded(module: torch.nn.Module, step: int) -> torch.nn.Module:
    state = {name: value.clone() for name, value in module.state_dict().items()}
    for name in state:
        if name.endswith("codebook"):
            state[name] = state[name].roll(step, 0) + 0.5 * step
    module.load_state_dict(state)
    return module


_MOVES = [_nothing, _evaluate, _write, _collapse, _not_finite, _loaded]


def _assert_same(make: _Make, between: _Between, **options: object) -> None:
    outs, state = _trained("always", make, between, **options)
    expected, dense = _trained("never", make, between, **options)
    for number, (got, wanted) in enumerate(zip(outs, expected, strict=True)):
        assert _equal(got, wanted), number
    assert state.keys() == dense.keys()
    for name in state:
        assert _equal(state[name], dense[name]), name


def _equal(got: Tensor, wanted: Tensor) -> bool:
    if not got.is_floating_point():
        return torch.equal(got, wanted)
    integers = {torch.float32: torch.int32, torch.float64: torch.int64}[got.dtype]
    return torch.equal(got.isnan(), wanted.isnan()) and torch.equal(
        got.nan_to_num(nan=0.0).view(integers), wanted.nan_to_num(nan=0.0).view(integers)
    )


@pytest.mark.parametrize("between", [*_MOVES, _copied])
@pytest.mark.parametrize("make", [_vector_quantizer, _residual])
def test_ema(make: _Make, between: _Between) -> None:
    _assert_same(make, between)


@pytest.mark.parametrize("between", _MOVES)
def test_a_codebook_that_an_optimizer_moves(between: _Between) -> None:
    _assert_same(_vector_quantizer, between, update=vq.Gradient())


@pytest.mark.parametrize("update", [vq.EMA(decay=0.9), vq.Gradient()], ids=str)
def test_a_codebook_of_directions(update: object) -> None:
    _assert_same(_vector_quantizer, _evaluate, metric="cosine", update=update)


def test_codes_are_left_out_in_training() -> None:
    """Without this the other tests of this file would compare the dense search with itself."""
    codes = cases.gaussian(1, 4 * K, D, seed=40)[1]
    module = vq.nn.VectorQuantizer(4 * K, D, init=codes, channel_dim=-1)
    x, _ = cases.gaussian(8000, 1, D, seed=41)
    for _ in range(3):
        module(x)
        cells = module._partition
        assert cells is not None
        share = ops.visited_share(x, module.codebook, cells, "l2", 1, None)
        assert share is not None
        assert share < 0.15
