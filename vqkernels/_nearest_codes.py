"""nearest_codes: the public function of the op of that name. Part of the functional layer."""

from __future__ import annotations

from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._prepare import PreparedCodebook
from vqkernels.functional import check_metric, check_search
from vqkernels.outputs import NearestCode


def nearest_codes(
    x: Tensor,
    codebook: Tensor | PreparedCodebook,
    k: int,
    *,
    metric: str = "l2",
    channel_dim: int = 1,
    backend: str | None = None,
) -> NearestCode:
    """The k nearest codes of every vector, exactly, nearest first.

    The first k codes in the order of (F, index), with F of ``nearest_code``; the largest dot
    product comes first with ``metric="cosine"``. Codes of equal value all count. The same bits on
    every backend and device; ``k=1`` gives those of ``nearest_code``. Not differentiable.

    Equals, apart from rounding and the order of ties,
    ``torch.cdist(x, codebook).topk(k, largest=False)`` for x of shape (N, D), without the (N, K)
    matrix.

    Args:
        x: (B, D, *spatial); float32, float16 or bfloat16 (float64: reference backend).
        codebook: (K, D), same choice of dtypes, same device as x; a PreparedCodebook counts as its
            codebook, which this search packs itself.
        k: number of codes, in [1, K].
        metric, channel_dim, backend: as for ``nearest_code``.

    Returns:
        NearestCode(indices int64, distances float32), both (*positions, k). A place without a code
        has index 0 and a NaN distance: every place of a vector with a NaN or an infinity, and the
        last ones where fewer than k codes are finite.

    Raises:
        TypeError, ValueError, RuntimeError: as ``nearest_code``.
    """
    if isinstance(codebook, PreparedCodebook):
        check_metric(codebook, metric)
        codebook = codebook.codebook
    channel = check_search(x, codebook, metric, channel_dim)
    _checks.integer_at_least("k", k, 1)
    if k > codebook.shape[0]:
        raise ValueError(f"k must be at most {codebook.shape[0]}, the number of codes, got {k}")
    return search_many(x, codebook, int(k), metric, channel, backend)


def search_many(
    x: Tensor, codebook: Tensor, k: int, metric: str, channel_dim: int, backend: str | None
) -> NearestCode:
    """``nearest_codes`` on checked arguments, for modules."""
    codes = codebook.detach()
    if metric == "cosine":
        codes, _ = ops.normalize_codes(codes)
    return NearestCode(*ops.nearest_codes(x.detach(), codes, k, metric, channel_dim, backend))
