"""Codes back to vectors: values, refusals, gradient."""

from __future__ import annotations

import importlib

import cases
import pytest
import torch
from budget import assert_summed_in_float64

import vqkernels as vq


@pytest.fixture(autouse=True)
def _backend_of_lookup(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """lookup takes no backend argument: without the extension it runs on the reference."""
    if backend == "reference":
        core = importlib.import_module("vqkernels.backends.native._core")
        monkeypatch.setattr(core, "_why", "switched off by a test")


@pytest.mark.parametrize("index_dtype", [torch.int64, torch.int32, torch.int8], ids=str)
@pytest.mark.parametrize("dtype", [*cases.DTYPES, torch.float64], ids=str)
def test_values_are_the_rows_of_the_codebook(dtype: torch.dtype, index_dtype: torch.dtype) -> None:
    codebook = cases.batch()[1].to(dtype)
    indices = torch.randint(0, 11, (5, 4), generator=cases.generator(1)).to(index_dtype)
    found = vq.lookup(indices, codebook, channel_dim=-1)
    assert found.dtype == dtype
    assert torch.equal(found, codebook[indices.long()])


@pytest.mark.parametrize(
    ("positions", "channel_dim", "shape"),
    [
        ((7,), 1, (7, 6)),
        ((7,), 0, (6, 7)),
        ((2, 3, 5), 1, (2, 6, 3, 5)),
        ((2, 3, 5), -1, (2, 3, 5, 6)),
        ((2, 3, 4, 5), 1, (2, 6, 3, 4, 5)),
        ((0, 3), 1, (0, 6, 3)),
        ((0,), -1, (0, 6)),
    ],
)
def test_channels_go_where_asked(
    positions: tuple[int, ...], channel_dim: int, shape: tuple[int, ...]
) -> None:
    _, codebook = cases.batch()
    indices = torch.randint(0, 11, positions, generator=cases.generator(2))
    found = vq.lookup(indices, codebook, channel_dim=channel_dim)
    assert found.shape == shape
    assert found.is_contiguous()
    assert torch.equal(found.movedim(channel_dim, -1), codebook[indices])


def test_strided_indices_and_codebooks_are_read_right() -> None:
    codebook = cases.batch()[1].T.contiguous().T
    indices = torch.randint(0, 11, (4, 6), generator=cases.generator(3)).T[::2]
    assert torch.equal(vq.lookup(indices, codebook, channel_dim=-1), codebook[indices])


def test_minus_one_gives_a_zero_vector() -> None:
    codebook = torch.full((3, 2), torch.inf)
    found = vq.lookup(torch.tensor([-1, 1, -1]), codebook)
    assert found.tolist() == [[0.0, 0.0], [torch.inf, torch.inf], [0.0, 0.0]]


@pytest.mark.parametrize("bad", [-2, 11, 2**40, -(2**40)])
def test_an_index_out_of_range_is_refused(bad: int) -> None:
    _, codebook = cases.batch()
    with pytest.raises(ValueError, match=rf"indices must be in \[-1, 10\], got {bad}$"):
        vq.lookup(torch.tensor([0, 3, bad, 5]), codebook)


def test_a_nonfinite_code_is_returned_as_it_is() -> None:
    codebook = torch.tensor([[torch.nan, 1.0], [-torch.inf, 2.0]])
    found = vq.lookup(torch.tensor([1, 0]), codebook)
    assert found[0].tolist() == [-torch.inf, 2.0]
    assert found[1, 0].isnan()


@pytest.mark.parametrize("layout", ["contiguous", "expanded", "transposed"])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_the_gradient_is_the_sum_over_the_positions(dtype: torch.dtype, layout: str) -> None:
    codebook = cases.batch()[1].to(dtype).requires_grad_()
    indices = torch.randint(-1, 11, (9, 8), generator=cases.generator(4))
    upstream = torch.randn(9, 6, 8, generator=cases.generator(5)).to(dtype)
    if layout == "expanded":
        upstream = upstream[:1].expand(9, 6, 8)
    elif layout == "transposed":
        upstream = upstream.transpose(0, 2).contiguous().transpose(0, 2)
    vq.lookup(indices, codebook).backward(upstream)

    rows, flat = cases.as_matrix(upstream, 1).double(), indices.reshape(-1) % 12
    exact = torch.zeros(12, 6, dtype=torch.float64).index_add_(0, flat, rows)[:11]
    magnitude = torch.zeros_like(exact.new_empty(12, 6)).index_add_(0, flat, rows.abs())[:11]
    assert_summed_in_float64(codebook.grad, exact, magnitude)


def test_a_nonfinite_gradient_reaches_its_code_only() -> None:
    codebook = cases.batch()[1].requires_grad_()
    upstream = torch.ones(3, 6)
    upstream[1] = torch.nan
    vq.lookup(torch.tensor([4, 2, 4]), codebook).backward(upstream)
    assert codebook.grad[2].isnan().all()
    assert codebook.grad[4].tolist() == [2.0] * 6
