"""Error budgets instead of tolerances.

A result may be as far from float64 as the same computation in eager PyTorch of the same dtype is,
plus one rounding of the largest value. No other number is allowed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def assert_within_budget(
    got: Tensor, exact: Tensor, eager: Tensor, intermediate: float = 0.0
) -> None:
    """``exact`` is float64, ``eager`` what plain PyTorch returns in the tested dtype.

    ``intermediate`` is the size of the terms that the value is a difference of: with one row the
    eager error may be zero by luck, where each of these terms has been rounded.
    """
    assert got.shape == exact.shape, (got.shape, exact.shape)
    assert torch.equal(got.isnan(), exact.isnan())
    band = torch.finfo(got.dtype).eps * _largest(exact)
    band += torch.finfo(torch.float32).eps * intermediate
    allowed = _largest(eager.double() - exact) + band
    error = _largest(got.double() - exact)
    assert error <= allowed, f"error {error:.3e} over budget {allowed:.3e} (eps band {band:.3e})"


def assert_summed_in_float64(got: Tensor, exact: Tensor, magnitude: Tensor) -> None:
    """One rounding of the float64 sum; ``magnitude`` is the sum of absolute values.

    2^-40 of it covers the float64 additions in any order, up to 8192 of them.
    """
    assert got.shape == exact.shape, (got.shape, exact.shape)
    allowed = torch.finfo(got.dtype).eps * exact.abs() + 2.0**-40 * magnitude
    assert bool(((got.double() - exact).abs() <= allowed).all())


def _largest(value: Tensor) -> float:
    finite = value.detach()[value.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
