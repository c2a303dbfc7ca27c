"""Stateless public functions: validate, call ops, return NamedTuples.

Shapes: x is ``(B, D, *spatial)`` with ``channel_dim=1`` (also right for ``(N, D)``) or any other
layout with the channels along ``channel_dim``. "Positions" means x's shape without the channels.
x is read through its strides; no permuted copy is made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._layout import row_shape
from vqkernels._prepare import PreparedCodebook
from vqkernels.outputs import CodeSums, CodeUsage, NearestCode, VQOutput


def nearest_code(
    x: Tensor,
    codebook: Tensor | PreparedCodebook,
    *,
    metric: str = "l2",
    channel_dim: int = 1,
    backend: str | None = None,
) -> NearestCode:
    """The nearest code of every vector, exactly.

    ``indices[n] = argmin_k F(x_n, c_k)`` where F is the float64 sum, i ascending, of
    ``(x_i - c_i)^2`` with each operation rounded separately; ties go to the lowest index. With
    ``metric="cosine"``: the argmax of the dot product with ``float32(c/|c|)``. The result is the
    same bits on every backend and device. A vector with a NaN or an infinity gets index 0 and a
    NaN distance; a code with one is never chosen. Not differentiable.

    Equals, apart from rounding, ``torch.cdist(x, codebook).argmin(-1)`` for x of shape (N, D),
    without the (N, K) matrix.

    Args:
        x: (B, D, *spatial); float32, float16 or bfloat16 (float64: reference backend).
        codebook: (K, D), same choice of dtypes, same device as x; or a PreparedCodebook.
        metric: "l2" or "cosine".
        channel_dim: dimension of x that holds the D channels.
        backend: "native", "triton", "reference", or None for the first available one.

    Returns:
        NearestCode(indices int64, distances float32), both shaped like the positions of x.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape, device or option.
        RuntimeError: a backend asked for by name is not built.
    """
    parts = None
    if isinstance(codebook, PreparedCodebook):
        check_metric(codebook, metric)
        parts = codebook.parts
        codebook = codebook.codebook
    channel = check_search(x, codebook, metric, channel_dim)
    return search(x, codebook, parts, metric, channel, backend)


def search(
    x: Tensor,
    codebook: Tensor,
    parts: list[Tensor] | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> NearestCode:
    """``nearest_code`` on checked arguments, for modules.

    ``parts`` are those of a PreparedCodebook or None; a search compares them with the codebook and
    leaves them unused where they differ.
    """
    codes = codebook.detach() if codebook.requires_grad else codebook
    if metric == "cosine":
        codes, _ = ops.normalize_codes(codes)
    rows = x.detach() if x.requires_grad else x
    return NearestCode(*ops.nearest_code(rows, codes, parts, metric, channel_dim, backend))


def lookup(
    indices: Tensor, codebook: Tensor | PreparedCodebook, *, channel_dim: int = 1
) -> Tensor:
    """Codes back to vectors: ``codebook[indices]`` with the channels put at ``channel_dim``.

    Index -1 (a masked position) gives a zero vector. The gradient of a code is the sum over the
    positions that hold it, accumulated in float64.

    Args:
        indices: positions, any shape of at least one dimension, integer dtype, values in [-1, K).
        codebook: (K, D), floating dtype, same device; or a PreparedCodebook.
        channel_dim: where the channels go in the result, which has one more dimension.

    Returns:
        Vectors in the codebook's dtype, for indices (B, *spatial) of shape (B, D, *spatial).

    Raises:
        TypeError, ValueError: bad arguments. An index outside of [-1, K) raises ValueError on the
            CPU and gives a NaN vector on CUDA, where reading it would stall the stream.
    """
    if isinstance(codebook, PreparedCodebook):
        codebook = codebook.codebook
    _checks.indices(indices)
    _checks.codebook(codebook)
    _checks.same_device("indices", indices, "codebook", codebook)
    channel = _checks.channel_dim(channel_dim, indices.ndim + 1)
    return ops.Lookup.apply(indices, codebook, channel)


def vector_quantize(
    x: Tensor,
    codebook: Tensor | PreparedCodebook,
    *,
    commitment_weight: float = 0.25,
    codebook_weight: float = 1.0,
    estimator: str = "straight_through",
    metric: str = "l2",
    mask: Tensor | None = None,
    channel_dim: int = 1,
    backend: str | None = None,
) -> VQOutput:
    """One quantizer step: assign, gather, losses, and a gradient through the assignment.

    With q = codebook[argmin_k |x - c_k|] (van den Oord et al. 2017, equations 1 to 3)::

        quantized = x + sg(q - x)        (bit-equal to q rounded to x's dtype)
        loss = commitment_weight * mse(x, sg(q)) + codebook_weight * mse(sg(x), q)

    mse is the mean over the valid elements (N_valid * D), 0 when there are none. With
    ``estimator="rotation"`` the gradient goes through the rotation and scaling that take x to q
    (Fifty et al. 2024, arXiv 2410.06424); the value is the same. With ``metric="cosine"`` x is
    replaced by x/max(|x|, 1e-12) and c by c/|c| in all of the above.

    Args:
        x: (B, D, *spatial); float32, float16 or bfloat16 (float64: reference backend).
            Differentiable.
        codebook: (K, D), floating dtype. Differentiable through the codebook term of the loss,
            unless it is a PreparedCodebook.
        commitment_weight: beta of the paper, at least 0.
        codebook_weight: factor of the codebook term, at least 0; 0 for a codebook that an EMA or
            nothing at all updates.
        estimator: "straight_through" or "rotation".
        metric: "l2" or "cosine".
        mask: bool, shaped like the positions; False positions return x itself in ``quantized``
            (gradient passes), index -1, and count nowhere.
        channel_dim: dimension of x that holds the D channels.
        backend: "native", "triton", "reference", or None.

    Returns:
        VQOutput(quantized, indices, loss, usage). Ties, non-finite values and exactness are as in
        ``nearest_code``; a vector with a NaN or an infinity is quantized to NaN, so that the loss
        shows it, and is left out of ``usage.counts``.

    Raises:
        TypeError, ValueError, RuntimeError: as ``nearest_code``.
    """
    parts = None
    if isinstance(codebook, PreparedCodebook):
        check_metric(codebook, metric)
        parts = codebook.parts
        codebook = codebook.codebook
    channel = check_search(x, codebook, metric, channel_dim)
    _checks.at_least("commitment_weight", commitment_weight, 0.0)
    _checks.at_least("codebook_weight", codebook_weight, 0.0)
    _checks.one_of("estimator", estimator, _checks.ESTIMATORS)
    _checks.mask(mask, x, row_shape(x, channel))
    out, _ = quantize_with_sums(
        x,
        codebook,
        parts,
        commitment_weight=float(commitment_weight),
        codebook_weight=float(codebook_weight),
        estimator=estimator,
        metric=metric,
        mask=mask,
        channel_dim=channel,
        backend=backend,
        statistics=False,
    )
    return out


def quantize_with_sums(
    x: Tensor,
    codebook: Tensor,
    parts: list[Tensor] | None,
    *,
    commitment_weight: float,
    codebook_weight: float,
    estimator: str,
    metric: str,
    mask: Tensor | None,
    channel_dim: int,
    backend: str | None,
    statistics: bool,
    chosen: Tensor | None = None,
    moves: Tensor | None = None,
) -> tuple[VQOutput, Tensor]:
    """``vector_quantize`` on checked arguments, and the (K, D) sums per code.

    For modules, which check before they move any state and need not do it twice. ``channel_dim``
    is not negative here, and ``parts`` are as in ``search``. ``chosen`` are indices of codes that
    take the place of the nearest ones. ``moves`` counts the moves of a codebook that moves by
    itself; compiled code has no place to keep it.
    """
    codes = ops.NormalizeCodes.apply(codebook) if metric == "cosine" else codebook
    quantized, loss, indices, mse, counts, sums = ops.VectorQuantize.apply(
        x,
        codes,
        parts,
        mask,
        chosen,
        metric,
        estimator,
        commitment_weight,
        codebook_weight,
        channel_dim,
        statistics,
        backend,
        None if torch.compiler.is_compiling() else moves,
    )
    return VQOutput(quantized, indices, loss, CodeUsage(counts, mse)), sums


def code_sums(
    x: Tensor,
    indices: Tensor,
    num_embeddings: int,
    *,
    mask: Tensor | None = None,
    channel_dim: int = 1,
    deterministic: bool = True,
) -> CodeSums:
    """Rows per code and their sum, the same bits on every run and at any thread count.

    ``counts[k] = #{n : indices[n] = k}``, ``sums[k] = sum of x_n with indices[n] = k``,
    accumulated in float64. Rows that are masked, have index -1, or hold a NaN or an infinity
    count nowhere. Not differentiable.

    Args:
        x: (B, D, *spatial), floating dtype.
        indices: integer dtype, positions of x, values in [-1, num_embeddings).
        num_embeddings: K, at least 1.
        mask: bool, positions of x, or None.
        channel_dim: dimension of x that holds the D channels.
        deterministic: False permits float32 atomics on CUDA, whose order, and with it the last
            bits of the sums, vary from run to run. The CPU is deterministic all the same.

    Returns:
        CodeSums(counts int64 (K,), sums float32 (K, D); float64 for float64 x).

    Raises:
        TypeError, ValueError: bad arguments; on the CPU also an index out of range.
    """
    _checks.floating("x", x)
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, got shape {tuple(x.shape)}")
    channel = _checks.channel_dim(channel_dim, x.ndim)
    _checks.integers("indices", indices)
    _checks.integer_at_least("num_embeddings", num_embeddings, 1)
    positions = row_shape(x, channel)
    _checks.shaped("indices", indices, positions)
    _checks.same_device("indices", indices, "x", x)
    _checks.mask(mask, x, positions)
    _checks.boolean("deterministic", deterministic)
    return CodeSums(
        *ops.code_sums(
            x.detach(), indices, num_embeddings, mask, "l2", channel, None, deterministic
        )
    )


def ema_update_(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor,
    counts: Tensor,
    sums: Tensor,
    *,
    decay: float,
    epsilon: float,
) -> None:
    """Moves a codebook by exponential moving averages, in place.

    ``s <- g*s + (1-g)*counts``, ``m <- g*m + (1-g)*sums``, then
    ``codebook = m / [(s+eps)/(S+K*eps)*S]`` with S the sum of s (van den Oord et al. 2017,
    equations 6 to 8, with Laplace smoothing). A code without any mass keeps its place.

    Args:
        codebook: (K, D), float32; overwritten.
        cluster_size: (K,), float32, s in rows; updated.
        embed_sum: (K, D), float32, m; updated.
        counts: (K,), integer or float, rows of this update.
        sums: (K, D), float32, their sums.
        decay: g in [0, 1).
        epsilon: smoothing in rows, at least 0.

    Raises:
        TypeError, ValueError: bad arguments; nothing has been changed then.
    """
    _checks.codebook(codebook)
    k, d = codebook.shape
    state = {"cluster_size": cluster_size, "embed_sum": embed_sum}
    for name, value in {**state, "counts": counts, "sums": sums}.items():
        _checks.tensor(name, value)
        _checks.shaped(name, value, (k,) if name in ("cluster_size", "counts") else (k, d))
        _checks.same_device(name, value, "codebook", codebook)
    for name, value in {"codebook": codebook, **state}.items():
        if value.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 (or float64), got {value.dtype}")
    _checks.in_range("decay", decay, 0.0, 1.0, closed_high=False)
    _checks.at_least("epsilon", epsilon, 0.0)
    ops.ema_update_(
        codebook.detach(),
        cluster_size,
        embed_sum,
        counts.detach(),
        sums.detach(),
        float(decay),
        float(epsilon),
    )


def check_metric(prepared: PreparedCodebook, metric: str) -> None:
    if metric != prepared.metric:
        raise ValueError(
            f"metric must be the one that the codebook was prepared for, {prepared.metric!r}, "
            f"got {metric!r}"
        )


def check_search(x: Tensor, codebook: Tensor, metric: str, channel_dim: int) -> int:
    _checks.codebook(codebook)
    channel = _checks.vectors(x, codebook.shape[1], channel_dim)
    _checks.same_device("codebook", codebook, "x", x)
    _checks.one_of("metric", metric, _checks.METRICS)
    return channel
