"""Sums of probabilities: over the rows for the usage of codes, over the codes for a row's mean."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._soft_pair import Normalisers, SoftPair
from vqkernels.backends.triton._soft_tile import logit_gain, probabilities


@triton.jit(do_not_specialize=["num_own", "num_other", "share"])
def _probability_sums_kernel(
    own_ptr,  # (M, W) fp32
    other_ptr,  # (L, W) fp32
    upper_ptr,  # (N,) fp32
    lower_ptr,  # (N,) fp32
    factor_ptr,  # (N,) fp32
    code_bias_ptr,  # (K,) fp32
    scalars_ptr,  # (2,) fp64
    weights_ptr,  # (L,) fp32 | None: ones
    sums_ptr,  # (pieces, M) fp64
    num_own,
    num_other,
    width,
    share,
    ROWS_OWN: tl.constexpr,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    own = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)
    own_ok = own < num_own
    gain = logit_gain(scalars_ptr)
    total = tl.zeros((OWNERS,), tl.float64)
    first = tl.program_id(1).to(tl.int64) * share
    for start in range(first, tl.minimum(first + share, num_other), OTHERS):
        other = start + tl.arange(0, OTHERS)
        other_ok = other < num_other
        p, _ = probabilities(
            own_ptr,
            other_ptr,
            upper_ptr,
            lower_ptr,
            factor_ptr,
            code_bias_ptr,
            own,
            other,
            own_ok,
            other_ok,
            width,
            gain,
            ROWS_OWN,
            OWNERS,
            OTHERS,
            CHANNELS,
        )
        if weights_ptr is not None:
            p *= tl.load(weights_ptr + other, mask=other_ok, other=0.0)[None, :]
        total += tl.sum(p, axis=1)
    tl.store(sums_ptr + tl.program_id(1).to(tl.int64) * num_own + own, total, mask=own_ok)


def probability_sums(
    pair: SoftPair,
    normalisers: Normalisers,
    *,
    rows_own: bool,
    weights: Tensor | None = None,
) -> Tensor:
    """(N,) or (K,) float64: for every row (or code) the sum of p over the codes (or rows).

    ``weights``, float32 and contiguous, multiply the p of each of the latter.
    """
    own, other = pair.sides(rows_own)
    cut = pair.split(rows_own)
    sums = torch.empty(cut.pieces, len(own), dtype=torch.float64, device=own.device)
    with torch.cuda.device_of(own):
        _probability_sums_kernel[(cut.tiles, cut.pieces)](
            own,
            other,
            *normalisers,
            pair.code_bias,
            pair.scalars,
            weights,
            sums,
            len(own),
            len(other),
            own.shape[1],
            cut.share,
            ROWS_OWN=rows_own,
            **cut.blocks,
        )
    return sums.sum(dim=0)
