"""ResidualVQ: quantizers that each take what the ones before have left, run as one op."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vqkernels import _checks, functional, ops
from vqkernels._layout import row_shape
from vqkernels._residual_quantize import residual_with_sums, stack_codebooks
from vqkernels.distributed import Statistics, seed_of_rank
from vqkernels.nn import _ranks
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.nn._option_checks import check_dropout
from vqkernels.nn._quantizer import Learnt, Quantizer, make_each, part_count
from vqkernels.nn.vector_quantizer import VectorQuantizer
from vqkernels.options import EMA, Entropy, LevelDropout
from vqkernels.outputs import VQOutput

# What one op for all levels needs equal.
_SAME = (
    "embedding_dim",
    "commitment_weight",
    "update",
    "estimator",
    "metric",
    "revive",
    "channel_dim",
    "process_group",
    "backend",
)


class ResidualVQ(FullPrecision, Quantizer):
    """Residual vector quantization (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1).

    Level l quantizes r_l = x - (c_0 + ... + c_{l-1}); ``quantized`` is the sum of all codes. The
    values, losses and gradients are those of ``vqkernels.residual_quantize``. The levels are
    ``VectorQuantizer`` modules in ``quantizers``, which keep the codebooks and their statistics by
    the rules that they have alone: the codebooks move at the start of the next training forward,
    on ``flush()``, and on leaving training mode when due; checkpointing and ``EMA(every=...)`` are
    as described there. k-means initialises level after level on the residuals of the first
    training batch, and a dead code of level l is revived by a residual r_l. All levels train or
    none: the mode is this module's, whatever ``eval()`` of one level says.

    Args:
        make: called once per level (once in all when shared); returns a new ``VectorQuantizer``.
            Or a sequence of them, one per level, where ``levels`` may be left out. They may differ
            in their codes, in how many they have, and in which are frozen. ``metric`` must be
            "l2": codes of length 1 cannot describe residuals that shrink. They take the nearest
            code (no ``assign``); of ``regularize`` they may have ``Orthogonal``, added per level.
        levels: L, at least 1.
        shared: all levels use one codebook. Its statistics are added over the levels, its
            candidates for revival are taken from all of them, and k-means sees x itself.
        dropout: ``LevelDropout(...)``: a training forward draws how many levels, from the first,
            every element of the batch (the first dimension of the positions) keeps. Its vectors
            have index -1 at the others, add nothing to their statistics, and are what ``decode``
            makes of the levels they keep. None, and evaluation, keep all levels. A checkpointed
            region draws again what it drew only if its backward comes before the next training
            forward, whatever ``EMA(every=...)``.

    Attributes:
        quantizers: ModuleList of L ``VectorQuantizer``, or of one when shared.
        levels: L.
        draws: int64 0-d buffer, what ``dropout`` counts its draws with; None without it.

    Raises:
        TypeError, ValueError: an argument, or what ``make`` returns, breaks its contract.
    """

    draws: Tensor | None

    def __init__(
        self,
        make: Callable[[], VectorQuantizer] | Sequence[VectorQuantizer],
        levels: int | None = None,
        *,
        shared: bool = False,
        dropout: LevelDropout | None = None,
    ) -> None:
        super().__init__()
        _checks.boolean("shared", shared)
        levels = part_count("levels", levels, make, shared)
        made = make_each(make, 1 if shared else levels, VectorQuantizer, _SAME)
        if made[0].metric != "l2":
            raise ValueError(
                f"make must return quantizers with metric='l2', got {made[0].metric!r}"
            )
        for module in made:
            if module.assign is not None:
                raise ValueError(
                    "make must return quantizers with assign=None for ResidualVQ, "
                    f"got {module.assign!r}"
                )
            if any(isinstance(option, Entropy) for option in module.regularize):
                raise ValueError(
                    "make must return quantizers without Entropy for ResidualVQ, "
                    f"got regularize={module.regularize}"
                )
        check_dropout(dropout, levels)
        self.quantizers = nn.ModuleList(made)
        self.levels = levels
        self.shared = shared
        self.embedding_dim = made[0].embedding_dim
        self.channel_dim = made[0].channel_dim
        self._code_shape = self._usage_shape = (levels,)
        self.dropout = dropout
        counter = torch.zeros((), dtype=torch.int64)
        self.register_buffer("draws", None if dropout is None else counter)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes x by all levels; in training mode also keeps their statistics.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage): indices (*positions, L), usage.counts
            (L, K), usage.mse (L,); the loss is the sum over the levels. K is the largest number
            of codes of a level.
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        first = self._level(0)
        channel = self._check(x, mask)
        if self.training:
            self._initialise(x, mask, channel)
            for codebook in self._codebooks():
                codebook._advance(codebook._every)
        kept = self._draw_levels(row_shape(x, channel)) if self.training else None
        codebooks = self._stacked()
        out, sums = residual_with_sums(
            x,
            codebooks,
            self._packed(),
            self.levels,
            commitment_weight=first.commitment_weight,
            codebook_weight=first._codebook_weight,
            estimator=first.estimator,
            mask=mask,
            kept=kept,
            channel_dim=channel,
            backend=first.backend,
            statistics=self.training and isinstance(first.update, EMA),
            moves=ops.count_both(self._moves(), self.draws),
        )
        if not self.training:
            return out, []
        statistics = self._statistics(x, codebooks, mask, kept, channel, out, sums)
        loss = out.loss
        for number, (counts, _, _, _) in enumerate(statistics):
            loss = self._level(number)._regularized(loss, x, mask, channel, counts)
        return out._replace(loss=loss), list(zip(self._codebooks(), statistics, strict=True))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the codes: int64, (*positions, L). Changes no state."""
        first = self._level(0)
        channel = self._check(x, None)
        options = (channel, False, False, False, first.backend)
        codebooks, packed = self._stacked(), self._packed()
        return ops.residual(x, codebooks, packed, self.levels, None, None, *options)[1]

    def decode(self, indices: Tensor) -> Tensor:
        """Sums of the codes, float32, channels at ``channel_dim``; index -1 adds nothing.

        Takes (*positions, L') with any L' from 1 to L: the first levels alone are a coarser
        description. With all of them this equals ``forward(x).quantized`` at valid positions until
        a codebook moves, up to the rounding to x's dtype. Differentiable in ``Gradient``
        codebooks.
        """
        _checks.integers("indices", indices)
        if indices.ndim < 2 or not 1 <= indices.shape[-1] <= self.levels:
            raise ValueError(
                f"indices must have shape (*positions, levels) with 1 to {self.levels} levels, "
                f"got {tuple(indices.shape)}"
            )
        first, *rest = (
            self._level(level).decode(indices[..., level]) for level in range(indices.shape[-1])
        )
        total = first
        for vectors in rest:
            total = total + vectors
        return total

    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Runs the k-means initialisation of the levels that still lack it, on x, now."""
        self._initialise(x, mask, self._check(x, mask))

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        return self._level(0)._check(x, mask)

    def _level(self, level: int) -> VectorQuantizer:
        module = self.quantizers[0 if self.shared else level]
        assert isinstance(module, VectorQuantizer)
        return module

    def _codebooks(self) -> list[LearnedCodebook]:
        return [self._level(level) for level in range(len(self.quantizers))]

    def _stacked(self) -> Tensor:
        """(L, K, D), or (1, K, D) when shared; K is the largest."""
        return stack_codebooks([level._codes for level in self._codebooks()])

    def _moves(self) -> Tensor | None:
        """As of one codebook. Level 0 meets every row, so no level moves without it."""
        first = self._level(0)
        if first.revive is None or isinstance(first.update, EMA):
            return first._moves
        revived = [level._moves for level in self._codebooks() if level._moves is not None]
        return torch.stack(revived).sum()

    def _packed(self) -> list[Tensor] | None:
        if len({level.num_embeddings for level in self._codebooks()}) > 1:
            return None  # the op has them filled up to one size
        parts = [part for level in self._codebooks() for part in level._packed() or ()]
        return parts if len(parts) == len(self.quantizers) else None

    @torch.no_grad()
    def _initialise(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        modules = self._codebooks()
        _ranks.start_alike(modules, self.draws)
        left = x.detach()
        for position, level in enumerate(modules):
            level._run_kmeans(left, mask, channel)
            if not any(other._init_open for other in modules[position + 1 :]):
                return
            indices = functional.nearest_code(
                left, level.codebook, channel_dim=channel, backend=level.backend
            ).indices
            left = left - functional.lookup(indices, level.codebook, channel_dim=channel)

    @torch.no_grad()
    def _draw_levels(self, positions: tuple[int, ...]) -> Tensor | None:
        """How many levels every position keeps; None for all."""
        drop = self.dropout
        if drop is None or self.draws is None:
            return None
        seed = seed_of_rank(drop.seed, self._level(0)._group)
        options = (drop.probability, drop.keep, drop.multiple_of, seed)
        ops.tick_(self.draws)
        kept = ops.draw_levels(self.draws, positions[0], self.levels, *options)
        return kept.reshape(-1, *(1 for _ in positions[1:])).expand(positions)

    @torch.no_grad()
    def _statistics(
        self,
        x: Tensor,
        codebooks: Tensor,
        mask: Tensor | None,
        kept: Tensor | None,
        channel: int,
        out: VQOutput,
        sums: Tensor,
    ) -> list[Statistics]:
        first = self._level(0)
        counts, rows, found = out.usage.counts, None, None
        if first.revive is not None:
            count, seed = first.revive.candidates, seed_of_rank(first.revive.seed, None)
            rows, found = ops.sample_residuals(
                x.detach(), codebooks, out.indices, mask, kept, first.clock, count, seed, channel
            )
        if self.shared:
            counts, sums = counts.sum(dim=0, keepdim=True), sums.sum(dim=0, keepdim=True)
            if rows is not None and found is not None:
                # Candidate j is a residual of level j mod L, or of level 0 if no row got that far.
                turn = torch.arange(rows.shape[1], device=rows.device)
                level = turn % self.levels
                rows = rows[torch.where(found[level] > 0, level, 0), turn][None]
        return [
            Statistics(
                counts[number, :k],
                sums[number, :k] if len(sums) else None,
                None if rows is None else rows[number],
                None if found is None else found[number],
            )
            for number, k in enumerate(level.num_embeddings for level in self._codebooks())
        ]

    def extra_repr(self) -> str:
        dropout = "" if self.dropout is None else f", dropout={self.dropout}"
        return f"levels={self.levels}, shared={self.shared}{dropout}"
