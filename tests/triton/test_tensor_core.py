"""The emulated tensor core: the features that were measured on GPUs, its errors, and the hook."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensor_core
from tensor_core import UNITS, UNKNOWN, Unit

Array = np.ndarray[Any, Any]

_CORES = [UNITS[80], UNITS[90], UNKNOWN]
_ids = [f"n={core.n}, e={core.e}" for core in _CORES]
_every_core = pytest.mark.parametrize("core", _CORES, ids=_ids)


def _sum(products: list[tuple[float, float]], accumulator: float, core: Unit) -> float:
    a, b = (np.array(factors, np.float16) for factors in zip(*products, strict=True))
    held = np.full((1, 1), accumulator, np.float32)
    return float(tensor_core.matmul(a[None], b[:, None], held, core)[0, 0])


@pytest.mark.parametrize(
    ("arch", "kept"),
    [(80, 24), (86, 24), (89, 24), (90, 25), (100, 25), (120, 25), (0, 23)],
)
def test_bits_below_those_of_the_result_count_while_a_block_is_added(arch: int, kept: int) -> None:
    """Eight of them make a bit of the result or, one place below what is kept, are all lost."""
    core = tensor_core.unit(arch)
    for below, expected in ((kept, 1.0 + core.n * 2.0**-kept), (kept + 1, 1.0)):
        products = [(2.0**-12, 2.0 ** (12 - below))] * core.n
        assert _sum(products, 1.0, core) == expected
        assert _sum([(-a, b) for a, b in products], -1.0, core) == -expected


@_every_core
def test_what_is_lost_is_cut_off_toward_zero(core: Unit) -> None:
    for sign in (1.0, -1.0):
        assert _sum([(sign * 2.0**-11, 2.0**-13 * 1.75)], sign, core) == sign


def test_the_exponent_of_a_product_is_not_normalised() -> None:
    """1.5 * 1.5 is above 2, and what it is aligned with keeps the bits of one above 1."""
    small = [(2.0**-12, 2.0**-13)] * 8
    assert _sum([(1.5, 1.5), *small], 0.0, UNITS[90]) == 2.25 + 2.0**-22
    assert _sum([(1.5, 1.25), *small], 0.0, UNITS[90]) == 1.875 + 2.0**-22


def test_a_subnormal_factor_has_the_exponent_of_the_smallest_normal_one() -> None:
    """2^-24 * 2^7 is aligned as if it were 2^-14 * 2^7."""
    other = (2.0**-14 * (1 + 2.0**-10), 2.0**-14)
    assert _sum([(2.0**-24, 2.0**7), other], 0.0, UNITS[90]) == 2.0**-17 + 2.0**-28
    exact = 2.0**-17 + other[0] * other[1]
    assert _sum([(2.0**-14, 2.0**-3), other], 0.0, UNITS[90]) == exact


def test_blocks_follow_one_another() -> None:
    """-1 comes too late for bits that the accumulator has already lost."""
    products = [(1.0, 1.0), *[(0.0, 1.0)] * 7, (2.0**-13, 2.0**-13), (-1.0, 1.0)]
    assert _sum(products[:8], 0.0, UNITS[80]) == 1.0
    assert _sum(products, 0.0, UNITS[80]) == 0.0
    assert _sum([products[0], *products[8:]], 0.0, Unit(8, 4)) == 2.0**-26


@_every_core
def test_integers_are_added_exactly(core: Unit) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-50, 50, (9, 40)), rng.integers(-50, 50, (40, 7))
    held = rng.integers(-1000, 1000, (9, 7))
    found = tensor_core.matmul(
        a.astype(np.float16), b.astype(np.float16), held.astype(np.float32), core
    )
    np.testing.assert_array_equal(found, a @ b + held)


def test_one_product_at_a_time_with_bits_enough_is_rounding_toward_zero() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.uniform(1, 2, 200).astype(np.float16) * rng.choice([-1, 1], 200) for _ in "ab")
    chain = Fraction(0)
    for x, y in zip(a, b, strict=True):
        chain = _truncated(chain + Fraction(float(x)) * Fraction(float(y)))
    held = np.zeros((1, 1), np.float32)
    found = tensor_core.matmul(
        a[None].astype(np.float16), b[:, None].astype(np.float16), held, Unit(1, 23)
    )
    assert Fraction(float(found[0, 0])) == chain


def _exponent(value: Fraction, smallest: int) -> int:
    """floor(log2 |value|), at least ``smallest``."""
    if value == 0:
        return smallest
    guess = abs(value.numerator).bit_length() - value.denominator.bit_length()
    return max(smallest, guess - (abs(value) < Fraction(2) ** guess))


def _cut(value: Fraction, grid: Fraction) -> Fraction:
    """To a multiple of ``grid``, toward zero."""
    return (abs(value) // grid) * grid * (1 if value > 0 else -1)


def _truncated(value: Fraction) -> Fraction:
    """To float32, toward zero."""
    return _cut(value, Fraction(2) ** (_exponent(value, -126) - 23))


def _data(name: str, m: int, k: int, n: int) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(2)
    a, b, held = rng.standard_normal((m, k)), rng.standard_normal((k, n)), np.zeros((m, n))
    if name == "positive":
        a, b = abs(a), abs(b)
    elif name == "one huge term":
        a[:, k // 2] *= 1000.0
    elif name == "cancelling":
        a[:, 1::2], b[1::2] = a[:, ::2], -b[::2] * (1 + 2.0**-9 * rng.standard_normal((1, n)))
    elif name == "accumulator":
        held = rng.standard_normal((m, n)) * 100
    elif name == "wide":
        a, b = (v * 2.0 ** rng.integers(-11, 11, v.shape) for v in (a, b))
    return a.astype(np.float16), b.astype(np.float16), held.astype(np.float32)


_DATA = ("random", "positive", "one huge term", "cancelling", "accumulator", "wide")


@_every_core
@pytest.mark.parametrize("name", _DATA)
def test_equals_the_model_in_rational_numbers(name: str, core: Unit) -> None:
    a, b, held = _data(name, 3, 40, 5)
    a[0, ::3] *= np.float16(2.0**-14)  # subnormal factors
    found = tensor_core.matmul(a, b, held, core)
    for i, j in np.ndindex(*found.shape):
        assert Fraction(float(found[i, j])) == _rational(a[i], b[:, j], held[i, j], core)


def _rational(a: Array, b: Array, held: Any, core: Unit) -> Fraction:
    total = Fraction(float(held))
    for start in range(0, len(a), core.n):
        terms = [(total, _exponent(total, -126))]
        for x, y in zip(a[start : start + core.n], b[start : start + core.n], strict=True):
            p, q = Fraction(float(x)), Fraction(float(y))
            terms.append((p * q, _exponent(p, -14) + _exponent(q, -14)))
        largest = max((exponent for value, exponent in terms if value != 0), default=0)
        grid = Fraction(2) ** (largest - 23 - core.e)
        total = _truncated(sum((_cut(value, grid) for value, _ in terms), Fraction(0)))
    return total


def _alpha(k: int, core: Unit) -> float:
    """n products and the accumulator lose a grid step each, the result a unit in its last place.

    A grid step is at most 2^(-23-e) of the largest term, and every partial sum at most that of the
    magnitudes, here without subnormal factors. The hundredth is for terms of second order.
    """
    blocks = -(-k // core.n)
    return 1.01 * 2.0**-23 * blocks * ((core.n + 1) * 2.0**-core.e + 1)


@_every_core
@pytest.mark.parametrize("k", [16, 48, 256])
@pytest.mark.parametrize("name", _DATA[:-1])
def test_the_error_is_within_the_bound_and_not_far_below_it(name: str, k: int, core: Unit) -> None:
    a, b, held = _data(name, 64, k, 64)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    found = tensor_core.matmul(a, b, held, core).astype(np.float64)
    magnitudes = abs(wide_a) @ abs(wide_b) + abs(held)
    relative = abs(found - (wide_a @ wide_b + held)) / magnitudes
    assert relative.max() <= _alpha(k, core)
    if name == "positive":  # the worst of these: every cut goes the same way
        assert relative.max() >= _alpha(k, core) / 20


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_only_what_a_special_value_meets_is_special(value: float) -> None:
    a, b, held = _data("random", 4, 20, 6)
    a[1, 3] = value
    found = tensor_core.matmul(a, b, held, UNITS[90])
    assert not np.isfinite(found[1]).any()
    assert np.isfinite(np.delete(found, 1, 0)).all()
    b[3] = 0
    assert np.isnan(tensor_core.matmul(a, b, held, UNITS[90])[1]).all()


def test_other_types_are_refused() -> None:
    a, b, held = _data("random", 4, 20, 6)
    with pytest.raises(TypeError, match="must be float16, float16 and float32, got float32"):
        tensor_core.matmul(a.astype(np.float32), b, held, UNITS[90])


def test_the_hook_serves_the_dots_of_interpreted_kernels_and_leaves_nothing_behind() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("tensor_core_hook.py"))],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["80: as emulated", "90: as emulated", "restored"]
