"""Sums of rows that share a target, which several ops need."""

from __future__ import annotations

from torch import Tensor


def scatter_rows(values: Tensor, target: Tensor, num_codes: int) -> Tensor:
    """Sum of the rows of ``values`` that share a target, the same bits on every run."""
    out = values.new_zeros(num_codes, values.shape[1])
    if values.is_cuda:  # index_add_ uses atomics there; this form sorts
        return out.index_put_((target,), values, accumulate=True)
    return out.index_add_(0, target, values)
