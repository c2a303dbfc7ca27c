"""soft_assign_backward in Triton: every vector is pulled along its differences to the others.

grad_x_n = (2/T) sum_k A_nk (c_k - x_n) and grad_c_k = (2/T) sum_n A_nk (x_n - c_k) are one sum,
with rows and codes in each other's place, and one kernel.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import like_x, write_rows
from vqkernels.backends.triton._soft_mass import probability_sums
from vqkernels.backends.triton._soft_pair import Normalisers, SoftPair, soft_pair
from vqkernels.backends.triton._soft_tile import logit_gain, probabilities

_MOST_CHANNELS = 128  # of a program: what it adds up lies in registers


@triton.jit(do_not_specialize=["num_own", "num_other", "share"])
def _pull_kernel(
    own_ptr,  # (M, W) fp32
    other_ptr,  # (L, W) fp32
    upper_ptr,  # (N,) fp32
    lower_ptr,  # (N,) fp32
    factor_ptr,  # (N,) fp32
    code_bias_ptr,  # (K,) fp32
    scalars_ptr,  # (2,) fp64
    own_level_ptr,  # (M,) fp32
    other_level_ptr,  # (L,) fp32
    slope_ptr,  # (N,) fp32 | None: zeros
    pulls_ptr,  # (pieces, M, W) fp32
    num_own,
    num_other,
    width,
    share,
    ROWS_OWN: tl.constexpr,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """step * sum_j p_ij (level_i + level_j + slope t_ij) (other_j - own_i).

    The slope is the row's.
    """
    own = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)
    own_ok = own < num_own
    gain = logit_gain(scalars_ptr)
    column = tl.program_id(2) * BLOCK_D + tl.arange(0, BLOCK_D)
    column_ok = (column < width)[None, :]
    own_level = tl.load(own_level_ptr + own, mask=own_ok, other=0.0)
    total = tl.zeros((OWNERS,), tl.float32)
    pull = tl.zeros((OWNERS, BLOCK_D), tl.float32)
    first = tl.program_id(1).to(tl.int64) * share
    for start in range(first, tl.minimum(first + share, num_other), OTHERS):
        other = start + tl.arange(0, OTHERS)
        other_ok = other < num_other
        other_level = tl.load(other_level_ptr + other, mask=other_ok, other=0.0)
        p, t = probabilities(
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
        weight = own_level[:, None] + other_level[None, :]
        if slope_ptr is not None:
            if ROWS_OWN:
                weight += t * tl.load(slope_ptr + own, mask=own_ok, other=0.0)[:, None]
            else:
                weight += t * tl.load(slope_ptr + other, mask=other_ok, other=0.0)[None, :]
        weight *= p
        at = other_ptr + (other[:, None] * width + column[None, :])
        vectors = tl.load(at, mask=other_ok[:, None] & column_ok, other=0.0)
        pull = tl.dot(weight, vectors, pull, input_precision="ieee")
        total += tl.sum(weight, axis=1)
    inside = own_ok[:, None] & column_ok
    at = own[:, None] * width + column[None, :]
    mine = tl.load(own_ptr + at, mask=inside, other=0.0)
    out = pulls_ptr + tl.program_id(1).to(tl.int64) * num_own * width + at
    step = tl.load(scalars_ptr + 1)
    pull = (pull - total[:, None] * mine).to(tl.float64) * step
    tl.store(out, pull.to(tl.float32), mask=inside)


def _pull(
    pair: SoftPair,
    normalisers: Normalisers,
    row_level: Tensor,
    code_level: Tensor,
    slope: Tensor | None,
    *,
    rows_own: bool,
) -> Tensor:
    """The gradient in the rows, (N, D), or in the codes, (K, D), float32."""
    own, other = pair.sides(rows_own)
    levels = (row_level, code_level) if rows_own else (code_level, row_level)
    num_own, width = own.shape
    block_d = min(triton.next_power_of_2(width), _MOST_CHANNELS)
    slices = triton.cdiv(width, block_d)
    cut = pair.split(rows_own, slices)
    pulls = own.new_empty(cut.pieces, num_own, width)
    with torch.cuda.device_of(own):
        _pull_kernel[(cut.tiles, cut.pieces, slices)](
            own,
            other,
            *normalisers,
            pair.code_bias,
            pair.scalars,
            *levels,
            slope,
            pulls,
            num_own,
            len(other),
            width,
            cut.share,
            ROWS_OWN=rows_own,
            **cut.blocks,
            BLOCK_D=block_d,
        )
    return pulls[:, :, : pair.dim].sum(dim=0)


def soft_assign_backward(
    grad_logsumexp: Tensor | None,
    grad_mean_logit: Tensor | None,
    grad_usage: Tensor | None,
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    logsumexp: Tensor,
    mean_logit: Tensor,
    temperature: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients in x and the codes as ``reference.soft_assign_backward`` defines them."""
    grad_x = like_x(x, x.dtype) if need_x else x.new_empty(0)
    shape = codebook.shape if need_codebook else (0,)
    grad_codebook = torch.zeros(shape, dtype=torch.float32, device=x.device)
    if logsumexp.numel() == 0:
        return grad_x, grad_codebook
    pair = soft_pair(x, codebook, mask, temperature, channel_dim)
    logsumexp, mean_logit = logsumexp.reshape(-1), mean_logit.reshape(-1)
    normalisers = pair.normalisers(logsumexp + pair.row_bias, logsumexp - mean_logit)
    # A_nk = p_nk (row_level_n + code_level_k + slope_n t_nk): t is the logit less the row's mean.
    row_level, code_level = torch.zeros_like(logsumexp), torch.zeros_like(pair.code_bias)
    slope = None
    if grad_logsumexp is not None:
        row_level = row_level + grad_logsumexp.reshape(-1)
    if grad_mean_logit is not None:
        row_level = row_level + grad_mean_logit.reshape(-1)
        slope = grad_mean_logit.reshape(-1).float()
    if grad_usage is not None:
        code_level = grad_usage.float().contiguous()
        row_level = row_level - probability_sums(
            pair, normalisers, rows_own=True, weights=code_level
        )
    terms = (pair, normalisers, row_level.float(), code_level, slope)
    if need_x:
        write_rows(_pull(*terms, rows_own=True), grad_x, channel_dim)
    if need_codebook:
        grad_codebook = _pull(*terms, rows_own=False)
    return grad_x, grad_codebook
