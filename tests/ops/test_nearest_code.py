"""The search: indices and distances are the oracle's bits, on everything."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest
import torch
from torch import Tensor

import vqkernels as vq


def _assert_equals(found: vq.NearestCode, expected: tuple[np.ndarray, np.ndarray]) -> None:
    assert found.indices.dtype == torch.int64
    assert found.distances.dtype == torch.float32
    np.testing.assert_array_equal(found.indices.reshape(-1).numpy(), expected[0])
    np.testing.assert_array_equal(found.distances.reshape(-1).numpy(), expected[1])


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("name", cases.SEARCH)
def test_equals_the_oracle(name: str, dtype: torch.dtype, metric: str, backend: str) -> None:
    x, codebook = cases.search(name, dtype)
    found = vq.nearest_code(x, codebook, metric=metric, backend=backend)
    _assert_equals(found, oracle.on_case(name, dtype, metric))


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_odd_shapes_equal_the_oracle(
    shape: tuple[int, int, int], metric: str, backend: str
) -> None:
    x, codebook = cases.gaussian(*shape)
    found = vq.nearest_code(x, codebook, metric=metric, backend=backend)
    _assert_equals(found, oracle.nearest_code(x, codebook, metric))


@pytest.mark.parametrize("code_dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_x_and_codebook_may_differ_in_dtype(
    dtype: torch.dtype, code_dtype: torch.dtype, backend: str
) -> None:
    x = cases.search("photo 4x4x3 PCA 32", dtype)[0]
    codebook = cases.search("photo 4x4x3 PCA 32", code_dtype)[1]
    found = vq.nearest_code(x, codebook, backend=backend)
    _assert_equals(found, oracle.nearest_code(x, codebook, "l2"))


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layout_changes_nothing(
    layout: str, dtype: torch.dtype, metric: str, backend: str
) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows.to(dtype))
    found = vq.nearest_code(x, codebook, metric=metric, channel_dim=channel_dim, backend=backend)
    positions = x.movedim(channel_dim, -1).shape[:-1]
    assert found.indices.shape == found.distances.shape == positions
    _assert_equals(found, oracle.nearest_code(cases.as_matrix(x, channel_dim), codebook, metric))


@pytest.mark.parametrize("make", ["column major", "a slice of wider rows", "expanded"])
def test_codebook_may_have_any_strides(make: str, backend: str) -> None:
    x, codebook = cases.batch(k=12)
    strided: dict[str, Tensor] = {
        "column major": codebook.T.contiguous().T,
        "a slice of wider rows": torch.cat([codebook, codebook * torch.nan], 1)[:, :6],
        "expanded": codebook[:1].expand(12, -1),
    }
    found = vq.nearest_code(x, strided[make], backend=backend)
    _assert_equals(found, oracle.nearest_code(x, strided[make].contiguous(), "l2"))


def test_float64_runs_on_the_reference_with_the_same_definition() -> None:
    x, codebook = (value.double() / 3 for value in cases.search("photo 2x2x3"))
    found = vq.nearest_code(x, codebook)
    _assert_equals(found, oracle.nearest_code(x, codebook, "l2"))


def test_ties_go_to_the_lowest_index(backend: str) -> None:
    x = torch.zeros(9, 2)
    codebook = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
    assert vq.nearest_code(x, codebook, backend=backend).indices.tolist() == [1] * 9


def test_a_tie_across_tiles_goes_to_the_lowest_index(backend: str) -> None:
    codebook = torch.full((5000, 3), 9.0)
    for code in (4999, 2500, 1023):  # far apart: any blocking of the codes separates them
        codebook[code] = 1.0
        found = vq.nearest_code(torch.zeros(3, 3), codebook, backend=backend)
        assert found.indices.tolist() == [code] * 3


def test_zero_rows_get_code_0_under_cosine(backend: str) -> None:
    _, codebook = cases.batch()
    found = vq.nearest_code(torch.zeros(5, 6), codebook, metric="cosine", backend=backend)
    assert found.indices.tolist() == [0] * 5
    assert found.distances.tolist() == [0.0] * 5


def test_the_inputs_are_not_written(backend: str) -> None:
    x, codebook = cases.batch()
    before = x.clone(), codebook.clone()
    vq.nearest_code(x, codebook, metric="cosine", backend=backend)
    assert torch.equal(x, before[0])
    assert torch.equal(codebook, before[1])


def test_no_gradient_is_recorded(backend: str) -> None:
    x, codebook = cases.batch()
    found = vq.nearest_code(x.requires_grad_(), codebook.requires_grad_(), backend=backend)
    assert not found.distances.requires_grad
