"""Codes far out, where EMA updates leave those that no row chose: exact, and next to no cost."""

from __future__ import annotations

import time

import cases
import numpy as np
import oracle
import pytest
import torch
from backends import native_core
from torch import Tensor

import vqkernels as vq

pytestmark = [
    pytest.mark.usefixtures("two_threads"),
    pytest.mark.skipif(native_core() is None, reason="native is not built"),
]

SHARES = {"one": 1 / 300, "half": 0.5, "nine in ten": 0.9, "all but ten": 290 / 300}
FACTORS = (1e2, 1e3, 1e6, 1e18)
ROWS = {"few rows": 200, "many rows": 600}  # streamed, packed


def _equals_the_oracle(x: Tensor, codebook: Tensor) -> None:
    found = vq.nearest_code(x, codebook, backend="native")
    indices, distances = oracle.nearest_code(x, codebook, "l2")
    np.testing.assert_array_equal(found.indices.numpy(), indices)
    np.testing.assert_array_equal(found.distances.numpy(), distances)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("share", SHARES)
def test_equals_the_oracle(share: str, factor: float, rows: str) -> None:
    """Also for rows that a far code can win, and a codebook with several sizes of far codes."""
    x, codebook = cases.far_codes(ROWS[rows], 300, 9, SHARES[share], factor)
    _equals_the_oracle(x, codebook)
    x[::3] *= factor
    codebook[::7] *= factor**0.5
    _equals_the_oracle(x, codebook)


@pytest.mark.parametrize("factor", FACTORS)
def test_k_nearest_equal_the_oracle(factor: float) -> None:
    """Ten codes are near: the best five are among them, the best twenty are not."""
    x, codebook = cases.far_codes(40, 300, 9, SHARES["all but ten"], factor)
    x[::3] *= factor
    for count in (5, 20):
        found = vq.nearest_codes(x, codebook, count, backend="native")
        indices, distances = oracle.nearest_codes(x, codebook, count, "l2")
        np.testing.assert_array_equal(found.indices.numpy(), indices)
        np.testing.assert_array_equal(found.distances.numpy(), distances)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("far_first", [False, True], ids=["near first", "far first"])
def test_a_far_code_ties_with_a_near_one_by_index(far_first: bool, rows: str) -> None:
    near, far = torch.arange(20.0)[:, None], 4096.0 + torch.arange(20.0)[:, None]
    codebook = torch.cat([far, near] if far_first else [near, far])
    x = torch.arange(2030.0, 2080.0).repeat(ROWS[rows] // 50)[:, None]
    _equals_the_oracle(x, codebook)


def test_half_of_the_codes_far_out_cost_less_than_twice_the_time() -> None:
    """Medians of interleaved runs; without care it is six times."""
    codebooks = [cases.far_codes(4096, 2048, 32, share)[1] for share in (0.0, 0.5)]
    x = cases.gaussian(4096, 1, 32)[0]
    taken: list[list[float]] = [[], []]
    for _ in range(9):
        for codebook, times in zip(codebooks, taken, strict=True):
            start = time.perf_counter()
            vq.nearest_code(x, codebook, backend="native")
            times.append(time.perf_counter() - start)
    near, half_far = (sorted(times)[4] for times in taken)
    assert half_far < 2 * near
