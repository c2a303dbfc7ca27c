"""The search for k codes: the oracle's order and bits, on everything."""

from __future__ import annotations

import cases
import numpy as np
import oracle
import pytest
import torch
from backends import isa_levels, native_core

import vqkernels as vq

ROWS = 64  # of a case: more show nothing new, and the oracle sorts every one


def _assert_equals(found: vq.NearestCode, expected: tuple[np.ndarray, np.ndarray]) -> None:
    assert found.indices.dtype == torch.int64
    assert found.distances.dtype == torch.float32
    indices, distances = (value.reshape(-1, value.shape[-1]).numpy() for value in found)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("name", cases.SEARCH)
def test_equals_the_oracle(name: str, metric: str, backend: str) -> None:
    for dtype in cases.DTYPES if backend == "native" else cases.DTYPES[:1]:
        x, codebook = cases.search(name, dtype)
        found = vq.nearest_codes(x[:ROWS], codebook, 16, metric=metric, backend=backend)
        _assert_equals(found, oracle.nearest_codes(x[:ROWS], codebook, 16, metric))


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_any_number_of_codes_at_odd_shapes(
    shape: tuple[int, int, int], metric: str, backend: str
) -> None:
    """Up to all of them: a sort of the codebook for every row."""
    x, codebook = cases.gaussian(*shape)
    x, codes = x[:20], shape[1]
    indices, distances = oracle.nearest_codes(x, codebook, codes, metric)
    for count in {1, (codes + 1) // 2, codes}:
        found = vq.nearest_codes(x, codebook, count, metric=metric, backend=backend)
        _assert_equals(found, (indices[:, :count], distances[:, :count]))


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layout_changes_nothing(layout: str, metric: str, backend: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows)
    found = vq.nearest_codes(
        x, codebook, 4, metric=metric, channel_dim=channel_dim, backend=backend
    )
    assert found.indices.shape == (*x.movedim(channel_dim, -1).shape[:-1], 4)
    matrix = cases.as_matrix(x, channel_dim)
    _assert_equals(found, oracle.nearest_codes(matrix, codebook, 4, metric))


@pytest.mark.skipif(native_core() is None, reason="native is not built")
@pytest.mark.parametrize("metric", cases.METRICS)
def test_levels_and_threads_change_nothing(metric: str, two_threads: None) -> None:
    """On all rows of a case: blocks of many rows, shared by the workers."""
    core = native_core()
    before = core.isa()
    try:
        for name in cases.SEARCH:
            x, codebook = cases.search(name)
            results = []
            for level in isa_levels():
                core.force_isa(level)
                torch.set_num_threads(1 + len(results) % 2)
                found = vq.nearest_codes(x, codebook, 7, metric=metric, backend="native")
                results.append([value.numpy() for value in found])
            for other in results[1:]:
                np.testing.assert_array_equal(other[0], results[0][0], err_msg=name)
                np.testing.assert_array_equal(other[1], results[0][1], err_msg=name)
            nearest = vq.nearest_code(x, codebook, metric=metric, backend="native")
            np.testing.assert_array_equal(results[0][0][:, 0], nearest.indices.numpy())
            np.testing.assert_array_equal(results[0][1][:, 0], nearest.distances.numpy())
    finally:
        core.force_isa(before)


def test_equal_codes_come_one_after_the_other_by_index(backend: str) -> None:
    codebook = torch.tensor([[2.0], [1.0], [-1.0], [1.0], [2.0], [-1.0], [0.5]])
    found = vq.nearest_codes(torch.zeros(3, 1), codebook, 7, backend=backend)
    assert found.indices.tolist() == [[6, 1, 2, 3, 5, 0, 4]] * 3
    assert found.distances.tolist() == [[0.25, 1.0, 1.0, 1.0, 1.0, 4.0, 4.0]] * 3


def test_places_without_a_code_have_index_0_and_nan(backend: str) -> None:
    codebook = torch.tensor([[torch.nan], [3.0], [torch.inf], [1.0]])
    x = torch.tensor([[0.0], [torch.inf], [torch.nan]])
    found = vq.nearest_codes(x, codebook, 3, backend=backend)
    assert found.indices.tolist() == [[3, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.distances[0, :2].tolist() == [1.0, 9.0]
    assert found.distances[0, 2].isnan()
    assert found.distances[1:].isnan().all()


def test_zero_rows_take_the_lowest_codes_under_cosine(backend: str) -> None:
    _, codebook = cases.batch()
    codebook[3] = codebook[1]
    found = vq.nearest_codes(torch.zeros(5, 6), codebook, 4, metric="cosine", backend=backend)
    assert found.indices.tolist() == [[0, 1, 2, 3]] * 5
    assert not found.distances.any()


def test_float64_runs_on_the_reference_with_the_same_definition() -> None:
    x, codebook = (value.double() / 3 for value in cases.search("photo 2x2x3"))
    found = vq.nearest_codes(x, codebook, 5)
    _assert_equals(found, oracle.nearest_codes(x, codebook, 5, "l2"))


def test_a_prepared_codebook_is_its_codebook() -> None:
    x, codebook = cases.batch()
    for got, expected in zip(
        vq.nearest_codes(x, vq.prepare(codebook), 3),
        vq.nearest_codes(x, codebook, 3),
        strict=True,
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("k", "kind", "message"),
    [
        (0, ValueError, "k must be at least 1, got 0"),
        (12, ValueError, "k must be at most 11, the number of codes, got 12"),
        (2.0, TypeError, "k must be an integer, got 2.0"),
    ],
)
def test_a_bad_k_is_refused(k: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        vq.nearest_codes(*cases.batch(), k)
