"""Losses over all codes, streamed: no (N, K) array. Part of the functional layer."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._layout import row_shape
from vqkernels._numerics import sum_of_many, wide
from vqkernels.functional import check_search
from vqkernels.options import Entropy, Orthogonal
from vqkernels.outputs import CodeEntropy


def code_entropy(
    x: Tensor,
    codebook: Tensor,
    *,
    temperature: float = 1.0,
    metric: str = "l2",
    mask: Tensor | None = None,
    channel_dim: int = 1,
    backend: str | None = None,
) -> CodeEntropy:
    """How sure the rows are of their codes, and how evenly the codes are used; in nats.

    With ``p_n = softmax over k of -|x_n - c_k|^2 / temperature`` and H the entropy::

        per_row = mean over n of H(p_n)          (0 when every row is sure)
        usage = H(mean over n of p_n)            (log K when the codes are used evenly)

    the two terms of the entropy penalty of Yu et al. 2023 (MAGVIT-v2, arXiv 2310.05737), which is
    ``per_row - usage``. With ``metric="cosine"`` the logits are
    ``cos(x_n, c_k) / temperature``, and a zero row is equally near to all codes.

    Memory is O(N*D + K*D), backward too: the logits are computed again instead of being kept.

    Args:
        x: (B, D, *spatial); float32, float16 or bfloat16 (float64: reference backend).
            Differentiable.
        codebook: (K, D), same choice of dtypes, same device. Differentiable.
        temperature: above 0; in units of squared distance (l2) or of the cosine.
        metric: "l2" or "cosine".
        mask: bool, shaped like the positions; False positions count nowhere.
        channel_dim: dimension of x that holds the D channels.
        backend: "native", "triton", "reference", or None for the first available one.

    Returns:
        CodeEntropy(per_row, usage). A row with a NaN or an infinity is left out, a code with one
        has probability 0; both are 0 where no row or no code is left.

    Raises:
        TypeError, ValueError, RuntimeError: as ``nearest_code``.
    """
    channel = _check(x, codebook, temperature, metric, mask, channel_dim)
    rows, codes, scale, valid = compared(x, codebook, float(temperature), metric, mask, channel)
    normaliser, mean, mass = ops.SoftAssign.apply(
        rows, codes, valid, scale, channel, True, backend
    )
    return mean_entropies(normaliser - mean, mass, valid, mass.dtype)


def mean_entropies(
    entropies: Tensor, mass: Tensor, valid: Tensor, dtype: torch.dtype
) -> CodeEntropy:
    """Of the entropies of all rows, 0 where not valid, and the sum of their probabilities."""
    count = valid.sum().clamp(min=1)
    share = mass.double() / count
    # A code of no mass has none to lose; log would send it an infinite gradient.
    logs = torch.where(share > 0, share, 1.0).log()
    return CodeEntropy(
        (sum_of_many(entropies.reshape(-1)) / count).to(dtype),
        -sum_of_many((share * logs).reshape(-1)).to(dtype),
    )


def code_cross_entropy(
    x: Tensor,
    codebook: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    metric: str = "l2",
    mask: Tensor | None = None,
    channel_dim: int = 1,
    backend: str | None = None,
) -> Tensor:
    """Mean of ``-log p_n[targets_n]``: cross-entropy of the soft assignment to given codes.

    p is that of ``code_entropy``. Equals ``F.cross_entropy(-cdist(x, codebook)**2 / temperature,
    targets, ignore_index=-1)`` for x of shape (N, D), without the (N, K) matrix; the target's own
    logit is formed from the differences x - c.

    Args:
        x, codebook, temperature, metric, mask, channel_dim, backend: as ``code_entropy``.
        targets: integer dtype, shaped like the positions, values in [-1, K); -1 counts nowhere.

    Returns:
        0-d, float32 (float64 for float64 input), differentiable in x and codebook; 0 when no row
        counts. It is NaN or infinite where a target's code is.

    Raises:
        TypeError, ValueError, RuntimeError: as ``nearest_code``; a target outside of [-1, K)
            raises ValueError on the CPU and gives NaN on CUDA.
    """
    channel = _check(x, codebook, temperature, metric, mask, channel_dim)
    _checks.integers("targets", targets)
    _checks.shaped("targets", targets, row_shape(x, channel))
    _checks.same_device("targets", targets, "x", x)
    targets = targets.long()  # an unsigned 255 is not -1
    kept = targets != -1 if mask is None else mask & (targets != -1)
    rows, codes, scale, valid = compared(x, codebook, float(temperature), metric, kept, channel)
    normaliser, _, _ = ops.SoftAssign.apply(rows, codes, valid, scale, channel, False, backend)
    dtype = wide(x.dtype, codebook.dtype)
    target = ops.Lookup.apply(targets, codes, channel).to(dtype)
    # where, not a product: what a row holds that counts nowhere must not reach the gradient.
    difference = torch.where(valid.unsqueeze(channel), rows.to(dtype) - target, 0.0)
    distance = difference.square().sum(dim=channel, dtype=torch.float64)
    total = sum_of_many(torch.where(valid, normaliser + distance / scale, 0.0).reshape(-1))
    return (total / valid.sum().clamp(min=1)).to(dtype)


def code_orthogonality(codebook: Tensor, counts: Tensor | None = None) -> Tensor:
    """How far the codes are from orthogonal: 0 when all of them are, 1 - 1/n when they are equal.

    ``sum over k, j of cos(c_k, c_j)^2 / n^2 - 1/n`` over all n = K codes, or over the n codes with
    counts > 0: the regulariser of Shin et al. 2021 (arXiv 2112.00384), ``|C C^T - I|^2 / n^2`` of
    the unit codes C. It is computed as the squared norm of the (D, D) matrix C^T C, which is the
    same: no (K, K) array.

    Args:
        codebook: (K, D), floating dtype. Differentiable. Codes that are zero or not finite are
            left out, as if their count were 0.
        counts: (K,), any real dtype, or None for all codes.

    Returns:
        0-d, float32 (float64 for a float64 codebook); 0 when no code is left.

    Raises:
        TypeError, ValueError: bad arguments.
    """
    _checks.codebook(codebook)
    if counts is not None:
        _checks.tensor("counts", counts)
        _checks.shaped("counts", counts, (codebook.shape[0],))
        _checks.same_device("counts", counts, "codebook", codebook)
    codes = codebook.detach()
    active = codes.isfinite().all(dim=1) & (codes != 0).any(dim=1)
    if counts is not None:
        active = active & (counts > 0)
    unit = ops.NormalizeCodes.apply(torch.where(active[:, None], codebook, 0.0))
    n = active.sum().clamp(min=1)
    wide_unit = unit.double()  # which autocast leaves alone
    squares = (wide_unit.T @ wide_unit).square().sum()
    excess = squares / n**2 - 1.0 / n
    return torch.where(active.any(), excess, 0.0).to(unit.dtype)


def regularization(
    option: Entropy | Orthogonal,
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    counts: Tensor,
    *,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> Tensor:
    """The loss, 0-d, that ``option`` adds to a step that found ``counts``. For modules."""
    if isinstance(option, Orthogonal):
        active = counts if option.active_only else None
        return option.weight * code_orthogonality(codebook, active)
    entropy = code_entropy(
        x,
        codebook,
        temperature=option.temperature,
        metric=metric,
        mask=mask,
        channel_dim=channel_dim,
        backend=backend,
    )
    return option.weight * (entropy.per_row - option.diversity * entropy.usage)


def _check(
    x: Tensor,
    codebook: Tensor,
    temperature: float,
    metric: str,
    mask: Tensor | None,
    channel_dim: int,
) -> int:
    channel = check_search(x, codebook, metric, channel_dim)
    _checks.above("temperature", temperature, 0.0)
    _checks.mask(mask, x, row_shape(x, channel))
    return channel


def compared(
    x: Tensor,
    codebook: Tensor,
    temperature: float,
    metric: str,
    mask: Tensor | None,
    channel: int,
) -> tuple[Tensor, Tensor, float, Tensor]:
    """(rows, codes, temperature, valid) whose l2 logits are those of the metric.

    Of unit vectors -|u - c|^2 / (2 t) is cos / t less a constant of the row, which changes neither
    probabilities nor entropies; the cross-entropy takes its target from the same vectors.
    """
    valid = x.detach().isfinite().all(dim=channel)
    valid = valid if mask is None else valid & mask
    if metric == "l2":
        return x, codebook, temperature, valid
    rows = ops.UnitRows.apply(x, valid, channel)
    return rows, ops.NormalizeCodes.apply(codebook), 2.0 * temperature, valid
