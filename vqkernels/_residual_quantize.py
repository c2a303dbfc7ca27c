"""residual_quantize: all levels of a residual quantizer. Part of the functional layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import torch
from torch import Tensor
from torch.nn.functional import pad

from vqkernels import _checks, ops
from vqkernels._layout import row_shape
from vqkernels._prepare import PreparedCodebook
from vqkernels.outputs import CodeUsage, VQOutput


def residual_quantize(
    x: Tensor,
    codebooks: Tensor | PreparedCodebook | Sequence[Tensor | PreparedCodebook],
    *,
    levels: int | None = None,
    commitment_weight: float = 0.25,
    codebook_weight: float = 1.0,
    estimator: str = "straight_through",
    mask: Tensor | None = None,
    kept: Tensor | None = None,
    channel_dim: int = 1,
    backend: str | None = None,
) -> VQOutput:
    """Residual vector quantization: each level quantizes what the levels before it have left.

    With r_0 = x, for l = 0 ... L-1 (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1)::

        c_l = nearest code of r_l among the codes of level l (squared distance)
        r_{l+1} = r_l - c_l                                        (float32)
        quantized = x + sg(c_0 + c_1 + ... + c_{L-1} - x)          (the bits of the sum)
        loss = sum over l of commitment_weight * mse(r_l, sg(c_l))
                             + codebook_weight * mse(sg(r_l), c_l)

    The codes are added in float32, l ascending, and the sum is rounded to x's dtype. In the loss
    r_l = x - sg(c_0 + ... + c_{l-1}), so that the commitment term of every level reaches x. mse is
    the mean over the valid elements (N_valid * D); the levels are added, not averaged, as in DAC
    and SoundStream. The values are those of ``vector_quantize`` applied to r_0, r_1, ... in turn,
    in one pass over x. With ``estimator="rotation"`` the gradient of ``quantized`` goes through
    the rotation and scaling that take x to the whole sum, once and not level by level.

    There is no cosine form: codes of length 1 cannot describe residuals that shrink.

    Args:
        x: (B, D, *spatial); float32, float16 or bfloat16 (float64: reference backend).
            Differentiable.
        codebooks: (L, K, D), or a sequence of L tensors (K_l, D), or one (K, D) that all levels
            share. Floating dtype. Differentiable through the codebook term of the loss. Instead
            of a (K, D) tensor a PreparedCodebook, then for all levels.
        levels: L, at least 1; needed, and only then, when the levels share one codebook.
        commitment_weight: beta of van den Oord et al. 2017, at least 0.
        codebook_weight: factor of the codebook term, at least 0.
        estimator: "straight_through" or "rotation".
        mask: bool, shaped like the positions; False positions return x itself in ``quantized``
            (gradient passes), index -1 at every level, and count nowhere.
        kept: integers, shaped like the positions: the number of levels, from the first, that a
            vector takes part in; below 0 is none, L and above all. At the others it has index -1
            and adds nothing to ``quantized``, the loss and the counts. The mean stays that over
            N_valid * D at every level, so that the weight of a vector in the loss does not depend
            on the others. A vector without a level is quantized to 0. As ``mask`` not
            differentiable, and read on the device only.
        channel_dim: dimension of x that holds the D channels.
        backend: "native", "triton", "reference", or None for the first available one.

    Returns:
        VQOutput(quantized, indices, loss, usage): ``indices`` (*positions, L), ``usage.counts``
        (L, K) and ``usage.mse`` (L,). With codebooks of unequal size K is the largest: a smaller
        one has counts of 0 above its own. Ties and exactness are as in ``nearest_code``. A vector
        with a NaN or an infinity has index 0 at every level, is quantized to NaN and counted
        nowhere; the same holds, from the next level on, where r_l - c_l overflows float32.

    Raises:
        TypeError, ValueError, RuntimeError: as ``nearest_code``.
    """
    tensors, parts = _unprepared(codebooks)
    stacked, levels = _stack(tensors, levels)
    channel = _checks.vectors(x, stacked.shape[2], channel_dim)
    _checks.same_device("codebooks", stacked, "x", x)
    _checks.at_least("commitment_weight", commitment_weight, 0.0)
    _checks.at_least("codebook_weight", codebook_weight, 0.0)
    _checks.one_of("estimator", estimator, _checks.ESTIMATORS)
    _checks.mask(mask, x, row_shape(x, channel))
    _check_kept(kept, x, row_shape(x, channel))
    out, _ = residual_with_sums(
        x,
        stacked,
        parts,
        levels,
        commitment_weight=float(commitment_weight),
        codebook_weight=float(codebook_weight),
        estimator=estimator,
        mask=mask,
        kept=None if kept is None else kept.long(),
        channel_dim=channel,
        backend=backend,
        statistics=False,
    )
    return out


def residual_with_sums(
    x: Tensor,
    codebooks: Tensor,
    parts: list[Tensor] | None,
    levels: int,
    *,
    commitment_weight: float,
    codebook_weight: float,
    estimator: str,
    mask: Tensor | None,
    kept: Tensor | None,
    channel_dim: int,
    backend: str | None,
    statistics: bool,
    moves: Tensor | None = None,
) -> tuple[VQOutput, Tensor]:
    """``residual_quantize`` on checked arguments, and the (L, K, D) sums of r_l per code.

    ``codebooks`` is (L, K, D), or (1, K, D) when the levels share it; ``parts`` are those of as
    many PreparedCodebooks, or None; ``kept`` is int64; ``moves`` is as in ``quantize_with_sums``.
    """
    learns = torch.is_grad_enabled()
    quantized, loss, indices, mse, counts, sums = ops.ResidualQuantize.apply(
        x,
        codebooks,
        parts,
        levels,
        mask,
        kept,
        estimator,
        commitment_weight,
        codebook_weight,
        channel_dim,
        statistics,
        learns and x.requires_grad,
        learns and codebooks.requires_grad,
        backend,
        None if torch.compiler.is_compiling() else moves,
    )
    return VQOutput(quantized, indices, loss, CodeUsage(counts, mse)), sums


def stack_codebooks(books: Sequence[Tensor]) -> Tensor:
    """(L, K, D) with the largest K. What a smaller one lacks is NaN: such a code never wins."""
    most = max(book.shape[0] for book in books)
    return torch.stack(
        [
            book
            if book.shape[0] == most
            else pad(book, (0, 0, 0, most - book.shape[0]), value=nan)
            for book in books
        ]
    )


def _check_kept(kept: Tensor | None, x: Tensor, positions: tuple[int, ...]) -> None:
    if kept is None:
        return
    _checks.integers("kept", kept)
    _checks.shaped("kept", kept, positions)
    _checks.same_device("kept", kept, "x", x)


def _unprepared(
    codebooks: Tensor | PreparedCodebook | Sequence[Tensor | PreparedCodebook],
) -> tuple[Tensor | Sequence[Tensor], list[Tensor] | None]:
    """The tensors, and what was prepared of them if all were, as many codes in each."""
    if isinstance(codebooks, Tensor):
        return codebooks, None
    books = [codebooks] if isinstance(codebooks, PreparedCodebook) else codebooks
    if not isinstance(books, Sequence):
        kind = type(books).__name__
        raise TypeError(f"codebooks must be a tensor or a sequence of tensors, got {kind}")
    prepared = [book for book in books if isinstance(book, PreparedCodebook)]
    for book in prepared:
        if book.metric != "l2":
            raise ValueError(f"codebooks must be prepared for metric='l2', got {book.metric!r}")
    tensors = [book.codebook if isinstance(book, PreparedCodebook) else book for book in books]
    complete = len(prepared) == len(tensors) and all(book.parts for book in prepared)
    complete = complete and len({len(tensor) for tensor in tensors}) == 1
    parts = [part for book in prepared for part in book.parts] if complete else None
    return tensors[0] if isinstance(codebooks, PreparedCodebook) else tensors, parts or None


def _stack(codebooks: Tensor | Sequence[Tensor], levels: int | None) -> tuple[Tensor, int]:
    """The codebooks as (L, K, D), or (1, K, D) when shared, and L."""
    if levels is not None:
        _checks.integer_at_least("levels", levels, 1)
    if isinstance(codebooks, Tensor) and codebooks.ndim == 2:
        _checks.codebook(codebooks, "codebooks")
        if levels is None:
            raise ValueError("levels must be given with one codebook for all of them, got None")
        return codebooks[None], int(levels)
    stacked = _checked(codebooks)
    if levels is not None and levels != len(stacked):
        raise ValueError(f"levels must be {len(stacked)}, one per codebook, got {levels}")
    return stacked, len(stacked)


def _checked(codebooks: Tensor | Sequence[Tensor]) -> Tensor:
    """One codebook per level, as (L, K, D)."""
    if isinstance(codebooks, Tensor):
        _checks.floating("codebooks", codebooks)
        if codebooks.ndim != 3:
            raise ValueError(
                "codebooks must have shape (L, K, D), or (K, D) with levels, "
                f"got {tuple(codebooks.shape)}"
            )
    if not len(codebooks):
        raise ValueError("codebooks must hold at least 1 codebook, got none")
    if isinstance(codebooks, Tensor):
        _checks.codebook(codebooks[0], "codebooks[0]")
        return codebooks
    first = codebooks[0]
    for level, book in enumerate(codebooks):
        name = f"codebooks[{level}]"
        _checks.codebook(book, name)
        if book.shape[1] != first.shape[1]:
            raise ValueError(
                f"{name} must have shape (K, {first.shape[1]}), got {tuple(book.shape)}"
            )
        _checks.same_device(name, book, "codebooks[0]", first)
        if book.dtype != first.dtype:
            raise TypeError(
                f"{name} must have the dtype of codebooks[0] ({first.dtype}), got {book.dtype}"
            )
    return stack_codebooks(codebooks)
