"""A prepared codebook gives the bits of the codebook itself, and can never be stale."""

from __future__ import annotations

import copy
import pickle

import cases
import pytest
import torch
from backends import isa_levels, native_core
from torch import Tensor

import vqkernels as vq
from vqkernels import ops


def _equal(got: vq.NearestCode, expected: vq.NearestCode) -> bool:
    return torch.equal(got.indices, expected.indices) and torch.equal(
        got.distances.nan_to_num(nan=-1.0), expected.distances.nan_to_num(nan=-1.0)
    )


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("name", cases.SEARCH)
def test_finds_what_the_codebook_finds(
    name: str, dtype: torch.dtype, metric: str, backend: str
) -> None:
    x, codebook = cases.search(name, dtype)
    prepared = vq.prepare(codebook, metric=metric, backend=backend)
    got = vq.nearest_code(x, prepared, metric=metric, backend=backend)
    assert _equal(got, vq.nearest_code(x, codebook, metric=metric, backend=backend))


@pytest.mark.parametrize("metric", cases.METRICS)
def test_is_taken_wherever_a_codebook_is(metric: str, backend: str) -> None:
    x, codebook = cases.batch()
    prepared = vq.prepare(codebook, metric=metric, backend=backend)
    outs = []
    for codes in (prepared, codebook):
        leaf = x.clone().requires_grad_()
        out = vq.vector_quantize(leaf, codes, metric=metric, backend=backend)
        (out.quantized.square().sum() + out.loss).backward()
        outs.append((*out[:3], leaf.grad))
    for got, expected in zip(*outs, strict=True):
        assert torch.equal(got, expected)
    indices = outs[0][1]
    assert torch.equal(vq.lookup(indices, prepared), vq.lookup(indices, codebook))
    assert repr(vq.explain(x, prepared, metric=metric)) == repr(vq.explain(x, codebook))


@pytest.mark.parametrize("n", [24, 600])
def test_serves_every_level_of_a_residual_quantizer(n: int, backend: str) -> None:
    x, codebook = cases.gaussian(n, 40, 6)
    books = cases.codebooks(codebook, 3)
    prepared = [vq.prepare(book, backend=backend) for book in books]
    for with_parts, plain, levels in (
        (prepared, books, None),
        ([prepared[0], books[1], prepared[2]], books, None),
        (prepared[0], books[0], 3),
    ):
        got = vq.residual_quantize(x, with_parts, levels=levels, backend=backend)
        expected = vq.residual_quantize(x, plain, levels=levels, backend=backend)
        for one, other in zip(got[:3], expected[:3], strict=True):
            assert torch.equal(one, other)
    with pytest.raises(ValueError, match="codebooks must be prepared for metric='l2'"):
        vq.residual_quantize(x, [vq.prepare(codebook, metric="cosine")])


def test_is_a_copy_of_its_own(backend: str) -> None:
    x, codebook = cases.batch()
    prepared = vq.prepare(codebook, backend=backend)
    expected = vq.nearest_code(x, codebook, backend=backend)
    codebook.zero_()
    assert _equal(vq.nearest_code(x, prepared, backend=backend), expected)


def test_survives_pickle_and_deepcopy(backend: str) -> None:
    x, codebook = cases.batch()
    prepared = vq.prepare(codebook, backend=backend)
    expected = vq.nearest_code(x, codebook, backend=backend)
    for twin in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert _equal(vq.nearest_code(x, twin, backend=backend), expected)


def test_another_metric_is_refused() -> None:
    x, codebook = cases.batch()
    prepared = vq.prepare(codebook)
    for call in (vq.nearest_code, vq.vector_quantize):
        with pytest.raises(ValueError, match=r"metric must be .* 'l2', got 'cosine'"):
            call(x, prepared, metric="cosine")


def test_another_width_is_refused_as_a_codebook_s_is() -> None:
    x, codebook = cases.batch()
    for codes in (codebook, vq.prepare(codebook)):
        with pytest.raises(ValueError, match="x must have size 6 in dimension 1"):
            vq.nearest_code(x[:, :5], codes)


def test_a_bad_argument_is_refused() -> None:
    with pytest.raises(ValueError, match="codebook must have shape"):
        vq.prepare(torch.ones(3))
    with pytest.raises(ValueError, match="metric must be one of"):
        vq.prepare(torch.ones(3, 2), metric="dot")


needs_native = pytest.mark.skipif(native_core() is None, reason="native is not built")


def _search(x: Tensor, codebook: Tensor, parts: list[Tensor], metric: str = "l2") -> Tensor:
    return ops.nearest_code(x, codebook, parts, metric, 1, "native")[0]


@needs_native
@pytest.mark.parametrize("n", [3, 700])
def test_parts_of_another_codebook_are_not_used(n: int) -> None:
    """Whichever element differs, the codebook given with the call decides."""
    x, codebook = cases.gaussian(n, 300, 70)
    parts = vq.prepare(codebook, backend="native").parts
    for element in (0, 1, 20_999 // 2, 300 * 70 - 1):
        moved = codebook.clone()
        moved.view(-1)[element] += 100.0
        expected = vq.nearest_code(x, moved, backend="reference").indices
        assert torch.equal(_search(x, moved, parts), expected), element


@needs_native
def test_parts_of_another_kind_are_not_used() -> None:
    x, codebook = cases.gaussian(20, 64, 8)
    expected = vq.nearest_code(x, codebook, backend="reference").indices
    cosine = vq.prepare(codebook, metric="cosine", backend="native").parts
    wide = vq.prepare(codebook.view(32, 16), backend="native").parts
    fits = vq.prepare(codebook, backend="native").parts[0]
    odd = torch.empty(fits.numel() + 8, dtype=torch.uint8)[8:].copy_(fits)
    damaged = [fits.clone() for _ in range(2)]
    damaged[0][:64].view(torch.int64)[4] = 1 << 40  # the number of positions
    ids = damaged[1].view(torch.int32)
    start = (ids.eq(1) & ids.roll(-1).eq(2) & ids.roll(1).eq(0)).nonzero()[0, 0]
    ids[start : start + 3] += 1 << 28
    for part in damaged:
        assert torch.equal(_search(x, codebook, [part]), expected)
    for parts in (cosine, wide, [odd], [fits.float()], [fits[:100]], [torch.zeros_like(fits)], []):
        assert torch.equal(_search(x, codebook, parts), expected)


@needs_native
def test_parts_of_another_instruction_set_are_not_used() -> None:
    x, codebook = cases.gaussian(20, 64, 8)
    expected = vq.nearest_code(x, codebook, backend="reference").indices
    core = native_core()
    before = core.isa()
    try:
        for made in isa_levels():
            core.force_isa(made)
            parts = vq.prepare(codebook, backend="native").parts
            for used in isa_levels():
                core.force_isa(used)
                assert torch.equal(_search(x, codebook, parts), expected), (made, used)
    finally:
        core.force_isa(before)
