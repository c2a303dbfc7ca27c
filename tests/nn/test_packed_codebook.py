"""A module keeps its codebook packed while it evaluates, and never searches in an old one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import cases
import pytest
import torch
from backends import native_core
from torch._subclasses.fake_tensor import FakeTensorMode

import vqkernels as vq

pytestmark = pytest.mark.skipif(native_core() is None, reason="native is not built")


def _module(**options: object) -> vq.nn.VectorQuantizer:
    torch.manual_seed(0)
    return vq.nn.VectorQuantizer(11, 6, init="normal", **options)


def _holds(module: vq.nn.VectorQuantizer) -> bool:
    return module._prepared is not None


def _write(module: vq.nn.VectorQuantizer) -> None:
    with torch.no_grad():
        module.codebook.copy_(module.codebook.flip(0))


def _write_data(module: vq.nn.VectorQuantizer) -> None:
    module.codebook.data.mul_(-1.0)


def _replace(module: vq.nn.VectorQuantizer) -> None:
    codes = module.codebook.detach().roll(1, 0)
    if isinstance(module.codebook, torch.nn.Parameter):
        module.codebook = torch.nn.Parameter(codes)
    else:
        module.codebook = codes


def _load(module: vq.nn.VectorQuantizer) -> None:
    state = {name: value.clone() for name, value in module.state_dict().items()}
    state["codebook"] = state["codebook"].roll(2, 0)
    module.load_state_dict(state)


def _assign(module: vq.nn.VectorQuantizer) -> None:
    state = {name: value.clone() for name, value in module.state_dict().items()}
    state["codebook"] = state["codebook"].roll(3, 0)
    module.load_state_dict(state, assign=True)


def _optimise(module: vq.nn.VectorQuantizer) -> None:
    """Some train the codebook of a module that is in eval mode."""
    if not isinstance(module.codebook, torch.nn.Parameter):
        return
    optimizer = torch.optim.SGD(module.parameters(), lr=1e4)
    module(cases.batch()[0]).loss.backward()
    optimizer.step()


def _train(module: vq.nn.VectorQuantizer) -> None:
    module.train()
    module(cases.batch()[0])
    module.flush()
    module.eval()


@pytest.mark.parametrize(
    "move", [_write, _write_data, _replace, _load, _assign, _optimise, _train]
)
@pytest.mark.parametrize("update", [vq.EMA(decay=0.5), vq.Gradient(), None], ids=str)
@pytest.mark.parametrize("metric", cases.METRICS)
def test_searches_in_the_codebook_that_it_has(
    metric: str, update: object, move: Callable[[vq.nn.VectorQuantizer], None]
) -> None:
    x, _ = cases.batch()
    module = _module(update=update, metric=metric).eval()
    module(x)
    module(x)
    assert _holds(module)
    for _ in range(2):
        move(module)
        codes = module.codebook.detach()
        expected = vq.nearest_code(x, codes, metric=metric, backend="reference").indices
        assert torch.equal(module.encode(x), expected)
        assert torch.equal(module(x).indices, expected)


def test_packs_only_what_does_not_move() -> None:
    x, _ = cases.batch()
    for update, training, packed in [
        (vq.EMA(), True, False),
        (vq.EMA(), False, True),
        (vq.Gradient(), True, False),
        (None, True, True),
    ]:
        module = _module(update=update).train(training)
        for _ in range(3):
            module(x)
        assert _holds(module) == packed, (update, training)


def test_packs_once() -> None:
    x, _ = cases.batch()
    module = _module().eval()
    module(x)
    assert not _holds(module)
    module(x)
    first = module._prepared
    assert first is not None
    module(x)
    module.encode(x)
    assert module._prepared is first


def test_lets_the_memory_go() -> None:
    x, _ = cases.batch()
    for leave in (lambda m: m.train()(x), lambda m: m.to("cpu"), _load):
        module = _module().eval()
        module(x)
        module(x)
        leave(module)
        assert not _holds(module)


@pytest.mark.parametrize("shared", [False, True])
def test_levels_search_in_the_codebooks_that_they_have(shared: bool) -> None:
    x, _ = cases.batch()
    module = vq.nn.ResidualVQ(_module, 3, shared=shared).eval()
    module(x)
    module(x)
    assert all(_holds(level) for level in module.quantizers)
    for _ in range(2):
        _write(module.quantizers[-1])
        books = [level.codebook for level in module.quantizers]
        expected = vq.residual_quantize(
            x,
            books[0] if shared else books,
            levels=3 if shared else None,
            backend="reference",
        ).indices
        assert torch.equal(module.encode(x), expected)
        assert torch.equal(module(x).indices, expected)


def test_the_packed_copy_is_no_state() -> None:
    x, _ = cases.batch()
    module = _module().eval()
    names = set(module.state_dict())
    module(x)
    module(x)
    assert _holds(module)
    assert set(module.state_dict()) == names
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert not _holds(twin)
        assert torch.equal(twin.encode(x), module.encode(x))


def test_compiles_with_and_without_it() -> None:
    x, _ = cases.batch()
    module = _module().eval()
    expected = module.encode(x)
    assert torch.equal(module.encode(x), expected)
    for _ in range(2):
        compiled = torch.compile(copy.deepcopy(module), fullgraph=True)
        assert torch.equal(compiled(x).indices, expected)
    compiled = torch.compile(module, fullgraph=True)
    assert torch.equal(compiled(x).indices, expected)
    _write(module)
    assert torch.equal(compiled(x).indices, module.encode(x))


def test_keeps_no_traced_tensor() -> None:
    x, _ = cases.batch()
    module = _module().eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        for _ in range(3):
            module.encode(x)
    assert not _holds(module)
    assert torch.equal(
        module.encode(x), vq.nearest_code(x, module.codebook, backend="reference").indices
    )
