"""The specification in plain PyTorch: any device, any float dtype, slow on purpose.

Every other backend is tested against these functions. The search evaluates the canonical score F
for every pair, in blocks, so that no allocation has both N and K as factors:

* l2: ``F = sum_i t_i * t_i`` with ``t_i = double(x_i) - double(c_i)``, i ascending, multiply and
  add rounded separately (float64, no fused multiply-add); the smallest F wins.
* cosine: ``F = sum_i double(x_i) * double(c_i)``, i ascending; the largest F wins; the codebook
  has been normalised by the caller, x is used as it is.

Ties in F go to the lowest index. A row or a code with a NaN or an infinity never takes part: such
a row gets index 0 and a NaN distance, such a code is never chosen.

Statistics and losses accumulate in float64 and are rounded once, to ``wide``: float32, or float64
when x or the codebook is float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqkernels._layout import as_rows, like_x, row_shape, write_rows
from vqkernels._numerics import TINY, fixed_sum, row_norm, unit_rows, upcast, wide

_BLOCK = 1024  # rows and codes per block of pairs: 8 MB of float64


def nearest_code(
    x: Tensor, codebook: Tensor, metric: str, channel_dim: int
) -> tuple[Tensor, Tensor]:
    """Indices (int64) and scores (float32) of the best code for every position of x."""
    rows = upcast(as_rows(x, channel_dim))
    codes = upcast(codebook)
    sign = 1.0 if metric == "l2" else -1.0
    usable = codes.isfinite().all(dim=1)
    indices = torch.zeros(rows.shape[0], dtype=torch.int64, device=x.device)
    best = torch.full_like(indices, torch.inf, dtype=torch.float64)
    for row in range(0, rows.shape[0], _BLOCK):
        here = slice(row, row + _BLOCK)
        for code in range(0, codes.shape[0], _BLOCK):
            there = slice(code, code + _BLOCK)
            score = sign * _canonical_score(rows[here], codes[there], metric)
            score = torch.where(usable[there], score, torch.inf)
            value, index = _lowest_minimum(score)
            better = value < best[here]
            indices[here] = torch.where(better, index + code, indices[here])
            best[here] = torch.where(better, value, best[here])
    lost = ~rows.isfinite().all(dim=1) | best.isinf()
    indices = indices.masked_fill(lost, 0)
    distances = (sign * best).masked_fill(lost, torch.nan).float()
    shape = row_shape(x, channel_dim)
    return indices.reshape(shape), distances.reshape(shape)


def _canonical_score(rows: Tensor, codes: Tensor, metric: str) -> Tensor:
    """F for every pair of a block; the loop over i is the definition, not an oversight."""
    score = torch.zeros(rows.shape[0], codes.shape[0], dtype=torch.float64, device=rows.device)
    for i in range(rows.shape[1]):
        if metric == "l2":
            t = rows[:, i, None] - codes[None, :, i]
            score = score + t * t
        else:
            score = score + rows[:, i, None] * codes[None, :, i]
    return score


def _lowest_minimum(score: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum along dim 1 and the lowest index that attains it; NaN counts as +inf."""
    score = torch.where(score.isnan(), torch.inf, score)
    value = score.amin(dim=1)
    position = torch.arange(score.shape[1], device=score.device)
    attained = torch.where(score == value[:, None], position, score.shape[1])
    return value, attained.amin(dim=1).clamp(max=score.shape[1] - 1)


def lookup(indices: Tensor, codebook: Tensor, channel_dim: int) -> Tensor:
    """Rows of the codebook along ``channel_dim``; index -1 gives zeros, a bad one NaN."""
    k, d = codebook.shape
    flat = indices.reshape(-1).long()
    rows = codebook[flat.clamp(0, k - 1)]
    rows = torch.where((flat == -1)[:, None], 0, rows)
    rows = torch.where(((flat < -1) | (flat >= k))[:, None], torch.nan, rows)
    return rows.reshape(*indices.shape, d).movedim(-1, channel_dim).contiguous()


def code_sums(
    x: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    num_codes: int,
    channel_dim: int,
    *,
    unit: bool,
    skip_nonfinite: bool,
) -> tuple[Tensor, Tensor]:
    """Counts (int64) and sums per code of the rows (``unit``: of x/|x|) that chose it."""
    rows = as_rows(x, channel_dim)
    flat = indices.reshape(-1).long()
    counted = (flat >= 0) & (flat < num_codes)
    if mask is not None:
        counted &= mask.reshape(-1)
    if skip_nonfinite:
        counted &= rows.isfinite().all(dim=1)
    values = rows.double()
    if unit:
        values = unit_rows(values)
    # Rows left out go to an extra code that is cut off: no boolean indexing, no host sync.
    target = torch.where(counted, flat, num_codes)
    sums = _scatter_rows(values, target, num_codes + 1)[:num_codes]
    counts = _scatter_rows(counted.long()[:, None], target, num_codes + 1)[:num_codes, 0]
    return counts, sums.to(wide(x.dtype))


def _scatter_rows(values: Tensor, target: Tensor, num_codes: int) -> Tensor:
    """Sum of the rows of ``values`` that share a target, the same bits on every run."""
    out = values.new_zeros(num_codes, values.shape[1])
    if values.is_cuda:  # index_add_ uses atomics there; this form sorts
        return out.index_put_((target,), values, accumulate=True)
    return out.index_add_(0, target, values)


def vq_forward(
    x: Tensor,
    codebook: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What follows the search: gather, squared error, counts and sums.

    Returns (quantized, indices, mse, counts, sums): ``quantized`` holds the code rows unrounded
    (wide), x itself where masked and NaN for non-finite rows; masked indices become -1.
    """
    dtype = wide(x.dtype, codebook.dtype)
    rows = as_rows(x, channel_dim)
    flat = indices.reshape(-1)
    valid = torch.ones_like(flat, dtype=torch.bool) if mask is None else mask.reshape(-1)
    flat = torch.where(valid, flat, -1)

    chosen = codebook.to(dtype)[flat.clamp(min=0)]
    chosen = torch.where(rows.isfinite().all(dim=1)[:, None], chosen, torch.nan)
    compared = unit_rows(rows.double()) if metric == "cosine" else rows.double()
    error = torch.where(valid[:, None], compared - chosen.double(), 0.0)
    count = (valid.sum() * rows.shape[1]).clamp(min=1)
    mse = (fixed_sum(error.square().sum(dim=1)) / count).to(dtype)

    quantized = torch.where(valid[:, None], chosen, rows.to(dtype))
    counts, sums = code_sums(
        x, flat, None, codebook.shape[0], channel_dim, unit=metric == "cosine", skip_nonfinite=True
    )
    return (
        write_rows(quantized, like_x(x, dtype), channel_dim),
        flat.reshape(indices.shape),
        mse,
        counts,
        sums.to(dtype) if statistics else sums.new_empty(0, rows.shape[1], dtype=dtype),
    )


def vq_backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor,
    quantized: Tensor,
    indices: Tensor,
    num_codes: int,
    metric: str,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``sum(grad_quantized * quantized) + grad_loss * loss`` in x and the codes.

    The estimator's Jacobian replaces that of the assignment, which is zero almost everywhere.
    """
    rows = as_rows(x, channel_dim).double()
    codes = as_rows(quantized, channel_dim).double()
    flat = indices.reshape(-1)
    valid = (flat >= 0)[:, None]
    unit = unit_rows(rows) if metric == "cosine" else rows
    upstream = torch.zeros_like(rows)
    if grad_quantized is not None:
        upstream = as_rows(grad_quantized, channel_dim).double()
    scale = torch.zeros((), dtype=torch.float64, device=x.device)
    if grad_loss is not None:
        scale = grad_loss.double() * 2.0 / (valid.sum() * rows.shape[1]).clamp(min=1)

    grad_x = x.new_empty(0)
    if need_x:
        estimated = _rotate_back(upstream, unit, codes) if estimator == "rotation" else upstream
        grad = estimated
        if grad_loss is not None:
            grad = grad + scale * commitment_weight * (unit - codes)
        if metric == "cosine":
            norm = row_norm(rows)
            grad = (grad - unit * (unit * grad).sum(dim=1, keepdim=True)) / norm
            grad = torch.where(norm < TINY, 0.0, grad)
        grad = torch.where(valid, grad, upstream)
        grad_x = write_rows(grad.to(x.dtype), like_x(x, x.dtype), channel_dim)

    grad_codes = quantized.new_empty(0)
    if need_codebook:
        error = torch.where(valid, scale * codebook_weight * (codes - unit), 0.0)
        target = torch.where(flat >= 0, flat, num_codes)
        grad_codes = _scatter_rows(error, target, num_codes + 1)[:num_codes].to(quantized.dtype)
    return grad_x, grad_codes


def residual(
    x: Tensor,
    codebooks: Tensor,
    levels: int,
    mask: Tensor | None,
    channel_dim: int,
    statistics: bool,
    need_x: bool,
    need_codebooks: bool,
    nearest: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``vq_forward`` on x, then on what each level leaves of it: r_{l+1} = r_l - c_l (wide).

    ``nearest(rows, codes)`` is the search. Returns (quantized, indices, mse, counts, sums,
    remainder, code_remainders): the last two are the sums of r_{l+1} over the levels, shaped like
    x, and over the rows of each code, (L, K, D).
    """
    dtype = wide(x.dtype, codebooks.dtype)
    rows = as_rows(x, channel_dim).to(dtype)
    flat_mask = None if mask is None else mask.reshape(-1)
    num_codes, dim = codebooks.shape[1:]
    left = rows
    quantized = remainder = torch.full_like(rows, -0.0)  # -0.0 + c has the bits of c
    steps = []
    for level in range(levels):
        codes = codebooks[level % len(codebooks)].to(dtype)
        step = vq_forward(left, codes, nearest(left, codes), flat_mask, "l2", 1, statistics)
        chosen, flat = step[:2]
        left = torch.where((flat >= 0)[:, None], left - chosen, 0.0)
        quantized, remainder = quantized + chosen, remainder + left
        per_code = left.new_empty(0, num_codes, dim)
        if need_codebooks:
            target = torch.where(flat >= 0, flat, num_codes)
            per_code = _scatter_rows(left.double(), target, num_codes + 1)[None, :num_codes]
        steps.append((*step[1:], per_code.to(dtype)))

    indices, mse, counts, sums, code_remainders = zip(*steps, strict=True)
    valid = (flat >= 0)[:, None]
    return (
        write_rows(torch.where(valid, quantized, rows), like_x(x, dtype), channel_dim),
        torch.stack(indices, dim=1).reshape(*row_shape(x, channel_dim), levels),
        torch.stack(mse),
        torch.stack(counts),
        torch.stack(sums) if statistics else rows.new_empty(0, num_codes, dim),
        write_rows(remainder, like_x(x, dtype), channel_dim) if need_x else rows.new_empty(0),
        torch.cat(code_remainders),
    )


def residual_backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor | None,
    quantized: Tensor | None,
    remainder: Tensor,
    code_remainders: Tensor,
    indices: Tensor,
    shared: bool,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    dtype: torch.dtype,
    need_x: bool,
    need_codebooks: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``sum(grad_quantized * quantized) + grad_loss * loss`` in x and the codes.

    The derivative of every level's term is a multiple of what the level leaves, r_l - c_l, and the
    forward has added these up. The estimator acts once, between x and the sum of its codes.
    """
    valid = (indices[..., 0] >= 0).reshape(-1, 1)
    scale = None
    if grad_loss is not None:
        size = remainder.shape[channel_dim] if need_x else code_remainders.shape[2]
        scale = grad_loss.double() * 2.0 / (valid.sum() * size).clamp(min=1)

    grad_x = remainder.new_empty(0, dtype=dtype)
    if need_x:
        left = as_rows(remainder, channel_dim).double()
        upstream = torch.zeros_like(left)
        if grad_quantized is not None:
            upstream = as_rows(grad_quantized, channel_dim).double()
        grad = upstream
        if estimator == "rotation" and x is not None and quantized is not None:
            ends = (as_rows(value, channel_dim).double() for value in (x, quantized))
            grad = _rotate_back(upstream, *ends)
        if scale is not None:
            grad = grad + scale * commitment_weight * left
        grad = torch.where(valid, grad, upstream)
        grad_x = write_rows(grad.to(dtype), like_x(remainder, dtype), channel_dim)

    grad_codes = code_remainders.new_empty(0)
    if need_codebooks:
        sums = code_remainders.double()
        sums = sums.sum(dim=0, keepdim=True) if shared else sums
        if scale is None:
            sums = torch.zeros_like(sums)
        else:
            sums = -scale * codebook_weight * sums
        grad_codes = sums.to(code_remainders.dtype)
    return grad_x, grad_codes


def _rotate_back(grad: Tensor, x: Tensor, q: Tensor) -> Tensor:
    """(|q|/|x|) R^T grad, where R turns x/|x| into q/|q| (Fifty et al. 2024, equation 4).

    R = I - 2 r r^T + 2 qh xh^T with r = (xh + qh)/|xh + qh|. Straight-through where x or q is 0.
    """
    x_norm, q_norm = row_norm(x), row_norm(q)
    xh, qh = x / _nonzero(x_norm), q / _nonzero(q_norm)
    half = xh + qh
    r = half / _nonzero(row_norm(half))
    turned = grad - 2.0 * r * (r * grad).sum(1, True) + 2.0 * xh * (qh * grad).sum(1, True)
    defined = (x_norm != 0) & (q_norm != 0)
    return torch.where(defined, q_norm / _nonzero(x_norm) * turned, grad)


def _nonzero(norm: Tensor) -> Tensor:
    return torch.where(norm == 0, 1.0, norm)
