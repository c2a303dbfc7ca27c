"""Sums of probabilities: over the rows for the usage of codes, over the codes for a row's mean."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._soft_pair import SoftPair
from vqkernels.backends.triton._soft_tile import log_probabilities


@triton.jit(do_not_specialize=["num_own", "num_other", "share"])
def _probability_sums_kernel(
    own_ptr,  # (M, W) fp32
    other_ptr,  # (L, W) fp32
    log_sums_ptr,  # (N,) fp64
    code_bias_ptr,  # (K,) fp32
    weights_ptr,  # (L,) fp32 | None: ones
    sums_ptr,  # (pieces, M) fp64
    num_own,
    num_other,
    width,
    scale,
    share,
    ROWS_OWN: tl.constexpr,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    own = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)
    own_ok = own < num_own
    total = tl.zeros((OWNERS,), tl.float64)
    first = tl.program_id(1).to(tl.int64) * share
    for start in range(first, tl.minimum(first + share, num_other), OTHERS):
        other = start + tl.arange(0, OTHERS)
        other_ok = other < num_other
        p = tl.exp(
            log_probabilities(
                own_ptr,
                other_ptr,
                log_sums_ptr,
                code_bias_ptr,
                own,
                other,
                own_ok,
                other_ok,
                width,
                scale,
                ROWS_OWN,
                OWNERS,
                OTHERS,
                CHANNELS,
            )
        )
        if weights_ptr is not None:
            p *= tl.load(weights_ptr + other, mask=other_ok, other=0.0)[None, :]
        total += tl.sum(p, axis=1)
    tl.store(sums_ptr + tl.program_id(1).to(tl.int64) * num_own + own, total, mask=own_ok)


def probability_sums(
    pair: SoftPair, log_sums: Tensor, *, rows_own: bool, weights: Tensor | None = None
) -> Tensor:
    """(N,) or (K,) float64: for every row (or code) the sum of p over the codes (or rows).

    ``log_sums`` are those of ``log_probabilities``; ``weights``, float32 and contiguous, multiply
    the p of each of the latter.
    """
    own, other = pair.sides(rows_own)
    cut = pair.split(rows_own)
    sums = torch.empty(cut.pieces, len(own), dtype=torch.float64, device=own.device)
    with torch.cuda.device_of(own):
        _probability_sums_kernel[(cut.tiles, cut.pieces)](
            own,
            other,
            log_sums,
            pair.code_bias,
            weights,
            sums,
            len(own),
            len(other),
            own.shape[1],
            pair.scale,
            cut.share,
            ROWS_OWN=rows_own,
            **cut.blocks,
        )
    return sums.sum(dim=0)
