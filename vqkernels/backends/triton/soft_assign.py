"""soft_assign in Triton: a pass over the codes per tile of rows, over the rows per tile of codes.

The first keeps a running maximum and sums relative to it, so that no probability is stored. What
several programs find of one row are log-sums and means of their own codes, which combine as the
codes do. The second, for the usage, computes the probabilities again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.triton._soft_mass import probability_sums
from vqkernels.backends.triton._soft_pair import SoftPair, soft_pair
from vqkernels.backends.triton._soft_tile import NOTHING, logit_gain, scores


@triton.jit(do_not_specialize=["num_rows", "num_codes", "share"])
def _log_sums_kernel(
    rows_ptr,  # (N, W) fp32
    codes_ptr,  # (K, W) fp32
    code_bias_ptr,  # (K,) fp32
    scalars_ptr,  # (2,) fp64
    log_sums_ptr,  # (pieces, N) fp64: log sum_k exp(gain s_nk)
    means_ptr,  # (pieces, N) fp64: the mean of gain s_nk by softmax(gain s_n)
    num_rows,
    num_codes,
    width,
    share,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)
    row_ok = row < num_rows
    gain = logit_gain(scalars_ptr)
    highest = tl.full((OWNERS,), -(2.0**127), tl.float32)
    total = tl.zeros((OWNERS,), tl.float64)  # sum_k exp(t), t = gain (s - highest)
    excess = tl.zeros((OWNERS,), tl.float64)  # sum_k t exp(t)
    first = tl.program_id(1).to(tl.int64) * share
    for start in range(first, tl.minimum(first + share, num_codes), OTHERS):
        code = start + tl.arange(0, OTHERS)
        code_ok = code < num_codes
        bias = tl.load(code_bias_ptr + code, mask=code_ok, other=float("inf"))
        s = scores(
            rows_ptr,
            codes_ptr,
            row,
            code,
            row_ok,
            code_ok,
            bias[None, :],
            width,
            OWNERS,
            OTHERS,
            CHANNELS,
        )
        before, highest = highest, tl.maximum(highest, tl.max(s, axis=1))
        step = tl.maximum(gain * (before - highest), NOTHING)
        t = tl.maximum(gain * (s - highest[:, None]), NOTHING)
        p, kept = tl.exp(t), tl.exp(step)
        excess = kept * (excess + step * total) + tl.sum(p * t, axis=1)
        total = kept * total + tl.sum(p, axis=1)
    found = total > 0  # else no code of these is finite
    total = tl.where(found, total, 1.0)
    at = tl.program_id(1).to(tl.int64) * num_rows + row
    best = tl.load(scalars_ptr) * highest
    log_sum = tl.where(found, best + tl.log(total), float("-inf"))
    mean = tl.where(found, best + excess / total, 0.0)
    tl.store(log_sums_ptr + at, log_sum, mask=row_ok)
    tl.store(means_ptr + at, mean, mask=row_ok)


def soft_assign(
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    temperature: float,
    channel_dim: int,
    usage: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(logsumexp, mean_logit, usage) as ``reference.soft_assign`` defines them."""
    shape = row_shape(x, channel_dim)
    logsumexp = torch.zeros(shape, dtype=torch.float64, device=x.device)
    used = torch.zeros(len(codebook) if usage else 0, dtype=torch.float32, device=x.device)
    if logsumexp.numel() == 0:
        return logsumexp, torch.zeros_like(logsumexp), used
    pair = soft_pair(x, codebook, mask, temperature, channel_dim)
    log_sums, means = _log_sums(pair)
    counted = pair.row_bias.isfinite() & log_sums.isfinite()
    logsumexp = torch.where(counted, log_sums - pair.row_bias, 0.0)
    mean_logit = torch.where(counted, means - pair.row_bias, 0.0)
    if usage:
        log_sums = torch.where(counted, log_sums, torch.inf)
        normalisers = pair.normalisers(log_sums, logsumexp - mean_logit)
        used = probability_sums(pair, normalisers, rows_own=False).float()
    return logsumexp.view(shape), mean_logit.view(shape), used


def _log_sums(pair: SoftPair) -> tuple[Tensor, Tensor]:
    """Of the scores, times their gain: log sum exp and the mean by softmax, (N,) float64."""
    (num_rows, width), num_codes = pair.rows.shape, len(pair.codes)
    cut = pair.split(rows_own=True)
    log_sums = pair.row_bias.new_empty(cut.pieces, num_rows)
    means = torch.empty_like(log_sums)
    with torch.cuda.device_of(log_sums):
        _log_sums_kernel[(cut.tiles, cut.pieces)](
            pair.rows,
            pair.codes,
            pair.code_bias,
            pair.scalars,
            log_sums,
            means,
            num_rows,
            num_codes,
            width,
            cut.share,
            **cut.blocks,
        )
    weights = torch.softmax(log_sums, dim=0)
    return torch.logsumexp(log_sums, dim=0), (weights * means).sum(dim=0)
