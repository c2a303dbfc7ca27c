"""Tensor cores on the CPU: what fp16 x fp16 -> fp32 returns there, bit for bit.

A tensor core takes the inner dimension in blocks of ``n`` products. In a block the exact products
and the accumulator are aligned to the largest exponent among them, keep 23 + e bits after it,
are truncated toward zero, and are added exactly; the sum is truncated to float32 and is the
accumulator of the next block. The exponent of a product is the sum of its factors' exponents: its
significand lies in [1, 4) and is not normalised, and a subnormal factor has exponent -14. Zeros
have no exponent.

Sources: Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", 2021
(doi 10.7717/peerj-cs.330); Khattak and Mikaitis, "Accurate models of NVIDIA tensor cores", 2025
(arXiv 2512.07004); Xie et al., "MMA-Sim", 2025 (arXiv 2511.10909), whose 24 and 25 fraction bits
are 23 + e. This model was compared with the results of A2, A100, L40S, Ada, H100, H200 and B200
that the authors of the second publish (north-numerical-computing/MATLAB-tensor-core), 5000 blocks
each: all bits agree, and with the bits and blocks of the other generation hundreds do not.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_FRACTION_BITS = 23
_NO_EXPONENT = -(1 << 20)


class Unit(NamedTuple):
    """n products per block, and e bits kept beyond the 23 of the result."""

    n: int
    e: int


UNITS = {
    80: Unit(8, 1),
    86: Unit(8, 1),
    89: Unit(8, 1),
    90: Unit(16, 2),
    100: Unit(16, 2),
    120: Unit(16, 2),
}
# The first generation: the fewest products per block and the fewest bits of all.
UNKNOWN = Unit(4, 0)


def unit(arch: int) -> Unit:
    """Of an architecture, 90 for sm_90."""
    return UNITS.get(arch, UNKNOWN)


def matmul(
    a: np.ndarray[Any, Any],  # (M, K) fp16
    b: np.ndarray[Any, Any],  # (K, N) fp16
    accumulator: np.ndarray[Any, Any],  # (M, N) fp32
    core: Unit,
) -> np.ndarray[Any, Any]:
    """``a @ b + accumulator`` as tensor cores evaluate it, shape (M, N), fp32."""
    if (a.dtype, b.dtype, accumulator.dtype) != (np.float16, np.float16, np.float32):
        raise TypeError(
            "a, b and accumulator must be float16, float16 and float32, "
            f"got {a.dtype}, {b.dtype} and {accumulator.dtype}"
        )
    special = ~np.isfinite(a).all(1)[:, None] | ~np.isfinite(b).all(0) | ~np.isfinite(accumulator)
    rows, columns = (np.where(np.isfinite(v), v, 0).astype(np.float64) for v in (a, b))
    total = np.where(special, np.float32(0), accumulator)
    for start in range(0, a.shape[1], core.n):
        block = slice(start, start + core.n)
        total = _block(rows[:, block], columns[block], total, core.e)
    if special.any():
        with np.errstate(invalid="ignore"):
            plain = a.astype(np.float64) @ b.astype(np.float64) + accumulator
        total = np.where(special, plain.astype(np.float32), total)
    return total


def _block(
    a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], accumulator: np.ndarray[Any, Any], e: int
) -> np.ndarray[Any, Any]:
    """One block. Terms are whole numbers of grid steps in float64, far below 2^53: exact."""
    held = accumulator.astype(np.float64)
    largest = _exponents(held, -126)
    factors = _exponents(a, -14), _exponents(b, -14)
    for k in range(a.shape[1]):
        np.maximum(largest, factors[0][:, k, None] + factors[1][k], out=largest)
    largest = np.maximum(largest, -256)  # where there are only zeros
    step = _FRACTION_BITS + e - largest
    finer = np.ldexp(1.0, step)
    total = np.trunc(held * finer)
    for k in range(a.shape[1]):
        term = a[:, k, None] * b[k]
        term *= finer
        total += np.trunc(term, out=term)
    return _toward_zero(np.ldexp(total, -step))


def _exponents(values: np.ndarray[Any, Any], smallest: int) -> np.ndarray[Any, Any]:
    """floor(log2 |value|), not below ``smallest``; zeros have one that never is the largest."""
    found = np.maximum(np.frexp(values)[1] - 1, smallest)
    return np.where(values == 0, np.int32(_NO_EXPONENT), found)


def _toward_zero(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    nearest = values.astype(np.float32)
    beyond = np.abs(nearest.astype(np.float64)) > np.abs(values)
    return np.where(beyond, np.nextafter(nearest, np.float32(0)), nearest)


@dataclasses.dataclass
class Use:
    """What was emulated: a test of a kernel looks here whether anything was."""

    unit: Unit
    dots: int = 0


@contextlib.contextmanager
def emulated(arch: int) -> Iterator[Use]:
    """Within it every ``tl.dot`` of Triton's interpreter runs as on the architecture.

    For a process with TRITON_INTERPRET=1. The accumulator is that of the call; a compiler may also
    take a tensor that is added to the dot as the accumulator, which the interpreter does not.
    """
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    use = Use(unit(arch))

    def create_dot(
        builder: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any
    ) -> Any:
        use.dots += 1
        return TensorHandle(matmul(a.data, b.data, d.data, use.unit), d.dtype.scalar)

    before = InterpreterBuilder.create_dot
    InterpreterBuilder.create_dot = create_dot
    try:
        yield use
    finally:
        InterpreterBuilder.create_dot = before
