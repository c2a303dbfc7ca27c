"""The certificate on tensor cores that truncate, emulated: no wrong row, and no room to spare."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensor_core

pytest.importorskip("triton")

from vqkernels.backends.triton import bound


def _searched(arch: int, division: float) -> list[str]:
    """In its own process: the interpreter is chosen when kernels are decorated."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("emulated.py")), str(arch), str(division)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("arch", [80, 90])
def test_no_row_is_wrong_and_most_are_closed_without_a_scan(arch: int) -> None:
    *wrong, closed = _searched(arch, 1)
    assert wrong == []
    rows, total = (int(word) for word in closed.split(" of "))
    assert rows >= 0.8 * total, closed


def test_a_bound_of_one_hundredth_lets_wrong_rows_pass() -> None:
    """Or the test above would say nothing about the bound."""
    *wrong, _ = _searched(90, 100)
    assert wrong


_SUMS = ("random", "positive", "one huge term", "cancelling", "subnormal")


def _operands(kind: str, inner: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((32, inner))
    b = rng.standard_normal((inner, 32))
    if kind == "positive":
        a, b = abs(a), abs(b)
    if kind == "one huge term":
        a[:, rng.integers(inner)] *= 200.0
    if kind == "cancelling":
        a[:, 1::2] = -a[:, ::2]
        b[1::2] = b[::2] * (1 + 2.0**-9)
    if kind == "subnormal":
        a[:, ::3] *= 2.0**-14
    return (a * 32).astype(np.float16), (b * 32).astype(np.float16)


@pytest.mark.parametrize("kind", _SUMS)
@pytest.mark.parametrize("inner", [32, 80, 208, 528])
@pytest.mark.parametrize("arch", [80, 90, 0])
def test_the_rounding_of_a_matrix_unit_stays_below_alpha(arch: int, inner: int, kind: str) -> None:
    core = tensor_core.unit(arch)
    a, b = _operands(kind, inner)
    zeros = np.zeros((a.shape[0], b.shape[1]), np.float32)
    found = tensor_core.matmul(a, b, zeros, core).astype(np.float64)
    a, b = a.astype(np.float64), b.astype(np.float64)
    alpha = bound.accumulation_error((core.n, core.e), 0, inner)
    assert (abs(found - a @ b) <= alpha * (abs(a) @ abs(b))).all()


@pytest.mark.parametrize("arch", [80, 90, 0])
def test_small_products_first_cost_almost_nothing(arch: int) -> None:
    """2^-11 of the others, as the low part of a number is, multiplied before them."""
    core = tensor_core.unit(arch)
    large, codes = _operands("random", 64)
    small = (large.astype(np.float64) * 2.0**-11).astype(np.float16)
    zeros = np.zeros((large.shape[0], codes.shape[1]), np.float32)
    found = tensor_core.matmul(large, codes, tensor_core.matmul(small, codes, zeros, core), core)
    a = np.concatenate([small, large], axis=1).astype(np.float64)
    b = np.concatenate([codes, codes]).astype(np.float64)
    alpha = bound.accumulation_error((core.n, core.e), 64, 64)
    assert (abs(found.astype(np.float64) - a @ b) <= alpha * (abs(a) @ abs(b))).all()
    assert alpha < 0.51 * bound.accumulation_error((core.n, core.e), 0, 128)


def test_the_units_are_those_that_were_compared_with_hardware() -> None:
    assert {arch: tensor_core.unit(arch) for arch in bound.UNITS if arch in tensor_core.UNITS} == {
        arch: unit for arch, unit in bound.UNITS.items() if arch in tensor_core.UNITS
    }
    assert tensor_core.UNKNOWN == bound.UNKNOWN_UNIT
