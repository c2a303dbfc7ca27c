"""The CUDA kernels, run on the CPU: the oracle's bits in any order of blocks and threads.

Every launch takes blocks, and threads between two barriers, in another random order, and shared
memory starts as NaN: a missing barrier or an element that nobody wrote shows up.
"""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import cases
import host_kernels
import numpy as np
import oracle
import pytest
import torch
from budget import assert_summed_in_float64
from torch import Tensor

pytestmark = pytest.mark.skipif(host_kernels.COMPILER is None, reason="needs g++")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return host_kernels.build(tmp_path_factory.mktemp("kernels") / "kernels.so")


def _wrong(found: tuple[Tensor, Tensor], expected: tuple[np.ndarray, np.ndarray]) -> int:
    indices, distances = (value.numpy() for value in found)
    same = (distances == expected[1]) | (np.isnan(distances) & np.isnan(expected[1]))
    return int(((indices != expected[0]) | ~same).sum())


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("name", cases.SEARCH)
def test_search_equals_the_oracle(
    name: str, dtype: torch.dtype, metric: str, library: ctypes.CDLL
) -> None:
    found = host_kernels.nearest_code(library, *cases.search(name, dtype), metric)
    assert _wrong(found, oracle.on_case(name, dtype, metric)) == 0


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_odd_shapes_equal_the_oracle(
    shape: tuple[int, int, int], metric: str, library: ctypes.CDLL
) -> None:
    x, codebook = cases.gaussian(*shape)
    found = host_kernels.nearest_code(library, x, codebook, metric)
    assert _wrong(found, oracle.nearest_code(x, codebook, metric)) == 0


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_search_reads_every_layout_in_place(
    layout: str, dtype: torch.dtype, library: ctypes.CDLL
) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows.to(dtype))
    found = host_kernels.nearest_code(library, x, codebook, "l2", channel_dim)
    expected = oracle.nearest_code(cases.as_matrix(x, channel_dim), codebook, "l2")
    assert _wrong(found, expected) == 0


@pytest.mark.parametrize("metric", cases.METRICS)
def test_rows_beyond_element_two_to_the_31_are_read(metric: str, library: ctypes.CDLL) -> None:
    """Strides that 32 bits cannot hold; only the pages of the rows are touched."""
    rows, codebook = cases.gaussian(3, 40, 5)
    memory = torch.empty((1 << 31) + 64, dtype=torch.float16)
    x = memory.as_strided((3, 5), (1 << 30, 1))
    x.copy_(rows)
    found = host_kernels.nearest_code(library, x, codebook, metric)
    assert _wrong(found, oracle.nearest_code(rows.half(), codebook, metric)) == 0


def test_the_bound_is_needed(library: ctypes.CDLL, tmp_path: Path) -> None:
    """With a bound a hundred times too small the certificate passes wrong rows."""
    kernels = tmp_path / "cuda"
    shutil.copytree(host_kernels.KERNELS, kernels)
    bound = kernels / "bound.cuh"
    text = bound.read_text()
    assert "double(dim + 8) * 0x1p-24" in text
    bound.write_text(text.replace("double(dim + 8) * 0x1p-24", "double(dim + 8) * 0.01 * 0x1p-24"))
    faulty = host_kernels.build(tmp_path / "faulty.so", kernels)
    x, codebook = cases.search("shifted by 1000")
    codebook = codebook[0] + 1e-3 * (codebook - codebook[0]).sign()  # near ties for every row
    expected = oracle.nearest_code(x, codebook, "cosine")
    assert _wrong(host_kernels.nearest_code(library, x, codebook, "cosine"), expected) == 0
    assert _wrong(host_kernels.nearest_code(faulty, x, codebook, "cosine"), expected) > 0


def _expected_sums(rows: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, sums and sums of absolute values by one-hot matrices in float64."""
    one_hot = torch.nn.functional.one_hot(indices[indices >= 0], k).double()
    rows = rows.double()[indices >= 0]
    return one_hot.sum(dim=0).long(), one_hot.T @ rows, one_hot.T @ rows.abs()


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_sums_of_every_layout_agree_with_one_hot_in_float64(
    layout: str, dtype: torch.dtype, unit: bool, library: ctypes.CDLL
) -> None:
    rows = cases.batch()[0].to(dtype)
    rows[4, 1], rows[5, 0] = torch.nan, torch.inf
    x, channel_dim = cases.LAYOUTS[layout](rows)
    matrix = cases.as_matrix(x, channel_dim).double()
    indices = torch.randint(-1, 7, (len(matrix),), generator=cases.generator(1))
    mask = torch.rand(len(matrix), generator=cases.generator(2)) < 0.7
    counts, sums = host_kernels.code_sums(
        library, x, indices, 7, mask, unit=unit, channel_dim=channel_dim
    )
    if unit:
        matrix = torch.nn.functional.normalize(matrix, dim=1)
    counted = torch.where(mask & matrix.isfinite().all(dim=1), indices, -1)
    expected = _expected_sums(matrix, counted, 7)
    assert torch.equal(counts, expected[0])
    assert_summed_in_float64(sums, *expected[1:])


def _hot_code() -> tuple[Tensor, Tensor]:
    """Runs of one code that are longer than, equal to and one past any window of 256 rows."""
    lengths = torch.tensor([2000, 1, 255, 256, 257, 0, 512])
    indices = torch.repeat_interleave(torch.arange(7), lengths)
    indices = indices[torch.randperm(len(indices), generator=cases.generator(4))]
    return torch.randn(len(indices), 5, generator=cases.generator(5)) * 1e4, indices


def test_sums_of_long_runs_agree_with_one_hot_in_float64(library: ctypes.CDLL) -> None:
    x, indices = _hot_code()
    counts, sums = host_kernels.code_sums(library, x, indices, 7)
    expected = _expected_sums(x, indices, 7)
    assert torch.equal(counts, expected[0])
    assert_summed_in_float64(sums, *expected[1:])


def test_sums_are_the_same_bits_in_any_order_of_threads_and_layout(library: ctypes.CDLL) -> None:
    x, indices = _hot_code()
    transposed = x.T.contiguous().T
    results = [
        host_kernels.code_sums(library, value, indices, 7, unit=True)[1]
        for value in (x, x, x, transposed)
    ]
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_bad_index_is_left_out(library: ctypes.CDLL) -> None:
    """A kernel cannot raise; it must not write elsewhere either."""
    x, _ = cases.batch()
    indices = torch.arange(24) % 7
    expected = indices.clone()
    for row, bad in enumerate((-2, 7, 1 << 40, -(1 << 40))):
        indices[row], expected[row] = bad, -1
    counts, sums = host_kernels.code_sums(library, x, indices, 7)
    one_hot = _expected_sums(x, expected, 7)
    assert torch.equal(counts, one_hot[0])
    assert_summed_in_float64(sums, *one_hot[1:])
