"""The pruned search in Triton, interpreted on the CPU or on a GPU: the oracle's bits, always."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest
import torch
from backends import interpreted
from torch import Tensor

import vqkernels as vq
from vqkernels import ops

triton = pytest.importorskip("triton")
import triton.language as tl  # noqa: E402, F401 (the interpreter looks for the name)

from vqkernels.backends.triton import near_cells, prepare, pruned  # noqa: E402
from vqkernels.backends.triton import nearest_code as search  # noqa: E402

pytestmark = [] if interpreted() else [pytest.mark.gpu]
_interpreted_only = pytest.mark.skipif(not interpreted(), reason="kernels are compiled here")
_compiled_only = pytest.mark.skipif(interpreted(), reason="kernels are interpreted here")
_DEVICE = "cpu" if interpreted() else "cuda"
# Interpreted searches are slow.
_HARD = (
    "shifted by 1000",
    "mixed scales",
    "float32 denormals",
    "largest floats",
    "integer grid",
    "half duplicated",
    "one cluster far away",
    "non-finite rows",
    "non-finite codes",
    "no finite code",
)
_NAMES = _HARD if interpreted() else tuple(cases.SEARCH)
_ROWS, _CODES, _CHANNELS = (6, 45, 8) if interpreted() else (300, 5000, 64)


def _prepared(codebook: Tensor, cells: int) -> list[Tensor]:
    parts: list[Tensor] = ops.prepare(codebook.to(_DEVICE), "l2", "triton", cells)
    return parts


def _wrong_rows(
    x: Tensor, codebook: Tensor, parts: list[Tensor], channel_dim: int = 1
) -> list[int]:
    """Rows whose index or distance is not the oracle's."""
    there = x.to(_DEVICE), codebook.to(_DEVICE)
    found = ops.nearest_code(*there, parts, "l2", channel_dim, "triton")
    expected = oracle.nearest_code(cases.as_matrix(x, channel_dim), codebook, "l2")
    indices, distances = (value.reshape(-1).cpu().numpy() for value in found)
    equal = (distances == expected[1]) | (np.isnan(distances) & np.isnan(expected[1]))
    return [int(row) for row in np.flatnonzero((indices != expected[0]) | ~equal)]


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each pruned search left to the dense one."""
    counts: list[int] = []

    def spy(*arguments: object) -> None:
        pruned.pruned(*arguments)
        counts.append(int(arguments[-1].count))

    monkeypatch.setattr(search, "pruned", spy)
    return counts


@pytest.mark.parametrize("name", _NAMES)
def test_equals_the_oracle(name: str, left: list[int]) -> None:
    x, codebook = (value[:, :_CHANNELS] for value in cases.search(name))
    x, codebook = x[:_ROWS], codebook[:_CODES]
    assert _wrong_rows(x, codebook, _prepared(codebook, 6)) == []
    assert left == [0] or name.startswith(("no", "one")) or not interpreted()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_any_layout_and_dtype_equal_the_oracle_in_blocks_of_rows(
    dtype: torch.dtype, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if interpreted() and dtype is torch.bfloat16:
        pytest.skip("the interpreter's bfloat16 is silently wrong")
    monkeypatch.setattr(pruned, "_BLOCK_ROWS", 20)
    rows, codebook = cases.batch(k=40)
    x, channel_dim = cases.LAYOUTS["cropped"](rows.to(dtype))
    assert _wrong_rows(x, codebook, _prepared(codebook, 4), channel_dim) == []
    assert left == [0]


def _one_cell(codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return codes[:count], torch.zeros(len(codes), dtype=torch.int64)


def _at_random(codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    g = cases.generator(0)
    centres = torch.randn(count, codes.shape[1], dtype=torch.float64, generator=g)
    return centres, torch.randint(count, (len(codes),), generator=g)


def _coincident(codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Equal centres, and some that are apart by less than what float32 squares resolve."""
    steps = (torch.arange(count) // 2)[:, None] * 1e-7
    return codes[:1] + steps.double(), torch.arange(len(codes)) % count


@pytest.mark.parametrize("partition", [_one_cell, _at_random, _coincident])
def test_any_partition_is_exact(
    partition: object, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(codes: Tensor, finite: Tensor, count: int) -> tuple[Tensor, Tensor]:
        return tuple(value.to(codes.device) for value in partition(codes.cpu(), count))

    monkeypatch.setattr(prepare, "partition", given)
    x, codebook = cases.gaussian(6, 45, 6)
    assert _wrong_rows(x, codebook, _prepared(codebook, 6)) == []
    assert left == [0]


@pytest.mark.parametrize("few", [1, 32], ids=["scanned", "screened"])
def test_rows_with_too_many_cells_are_left_to_the_dense_search(
    few: int, left: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_FEW", few)
    x, codebook = cases.gaussian(6, 64, 16)
    assert _wrong_rows(x, codebook, _prepared(codebook, 40)) == []
    assert left[0] > 0


@pytest.mark.parametrize("element", [0, -1])
def test_cells_of_another_codebook_are_not_used(element: int, left: list[int]) -> None:
    x, codebook = cases.gaussian(6, 24, 5)
    parts = _prepared(codebook, 4)
    codebook.view(-1)[element] += 100.0
    x[0] = codebook.view(-1, 5)[element]
    assert _wrong_rows(x, codebook, parts) == []
    assert left == [6]


def test_a_block_of_another_origin_is_not_used(left: list[int]) -> None:
    """Right in its shape alone: what it holds may be any bytes."""
    x, codebook = cases.gaussian(6, 24, 5)
    (block,) = _prepared(codebook, 4)
    assert _wrong_rows(x, codebook, [torch.full_like(block, 77)]) == []
    assert left == [6]


def test_a_row_among_cells_that_lie_apart_looks_at_its_own_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts: list[Tensor] = []

    def spy(*arguments: object) -> tuple[Tensor, Tensor]:
        found = near_cells.cells_in_reach(*arguments)
        counts.append(found[1])
        return found

    monkeypatch.setattr(pruned, "cells_in_reach", spy)
    spread, _ = cases.gaussian(70, 1, 4)
    points = 0.1 * spread + 10 * torch.eye(4)[torch.arange(70) % 4]
    assert _wrong_rows(points[60:], points[:60], _prepared(points[:60], 4)) == []
    assert counts[0].tolist() == [0] * 10


@triton.jit
def _careless(margin, inverse, square, home_square, reached, dim):
    return margin + inverse * (square - home_square) > reached


@_interpreted_only
def test_without_the_rounding_term_rows_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests above would say nothing about it."""
    monkeypatch.setattr(near_cells, "out_of_reach", _careless)
    x, codebook = cases.gaussian(16, 40, 4)
    x, codebook = x * 30, 5 + codebook * 1e-6
    assert _wrong_rows(x, codebook, _prepared(codebook, 8)) != []


def test_only_what_was_prepared_with_cells_is_pruned(left: list[int]) -> None:
    x, codebook = (value.to(_DEVICE) for value in cases.gaussian(6, 24, 5))
    expected = vq.nearest_code(x, codebook, backend="reference")
    assert vq.prepare(codebook, backend="triton").parts == []
    assert vq.prepare(codebook, backend="triton", cells=0).parts == []
    prepared = vq.prepare(codebook, backend="triton", cells=4)
    found = vq.nearest_code(x, prepared, backend="triton")
    assert left == [0]
    assert torch.equal(found.indices, expected.indices)


def test_the_op_passes_opcheck() -> None:
    _, codebook = cases.batch()
    torch.library.opcheck(ops.prepare, (codebook.to(_DEVICE), "l2", "triton", 4))


def test_steps_use_the_cells(left: list[int]) -> None:
    x, codebook = (value.to(_DEVICE) for value in cases.gaussian(6, 24, 5))
    books = torch.stack([codebook, codebook / 2])
    parts = _prepared(books[0], 4) + _prepared(books[1], 4)
    levels = (2, None, None, 1, True, True, True)
    indices = (
        ops.vq_forward(x, codebook, parts[:1], None, "l2", 1, True, "triton")[1],
        ops.residual(x, books, parts, *levels, "triton")[1],
    )
    assert left == [0] * 3
    assert torch.equal(indices[1], ops.residual(x, books, None, *levels, "reference")[1])
    assert torch.equal(indices[0], indices[1][:, 0])


@_compiled_only
def test_nothing_waits_for_the_device() -> None:
    x, codebook = (value.to(_DEVICE) for value in cases.gaussian(3000, 2000, 8))
    parts = _prepared(codebook, 90)
    ops.nearest_code(x, codebook, parts, "l2", 1, "triton")
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.nearest_code(x, codebook, parts, "l2", 1, "triton")
    finally:
        torch.cuda.set_sync_debug_mode("default")
