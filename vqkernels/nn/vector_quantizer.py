"""VectorQuantizer: each vector becomes its nearest code."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vqkernels import _checks, functional, ops
from vqkernels._assign import drawn_codes, quantize_to_many
from vqkernels._layout import row_shape
from vqkernels._nearest_codes import search_many
from vqkernels._soft import regularization
from vqkernels.distributed import Statistics, seed_of_rank
from vqkernels.nn._learned_codebook import DEFAULT_REVIVE, LearnedCodebook
from vqkernels.nn._option_checks import check_assign, check_regularize
from vqkernels.nn._quantizer import Learnt, Quantizer
from vqkernels.options import EMA, Assign, Gradient, Regularizer, Revive, Sample, TopK, Update
from vqkernels.outputs import VQOutput


class VectorQuantizer(LearnedCodebook, Quantizer):
    """Replaces each vector by its nearest code (van den Oord et al. 2017, arXiv 1711.00937).

    The values, losses and gradients are those of ``vqkernels.vector_quantize``; this module adds
    the codebook and how it learns. The codebook moves at one known place: a training forward
    stores its statistics when it ends, and the next one applies them when it starts; so does
    ``flush()``, and so does leaving training mode when an update is due. Until then
    ``decode(out.indices)`` reproduces ``out.quantized``, and a checkpointed region recomputes with
    the same codebook, provided that its backward comes before the next training forward: several
    checkpointed forwards per backward need ``EMA(every=...)`` of that number. A non-reentrant
    checkpoint that recomputes with a moved codebook raises RuntimeError (on CUDA its gradient is
    NaN); a re-entrant one, or one around a compiled region, cannot notice.
    Training mode alone decides whether statistics are kept, as in BatchNorm.

    The codebook and its statistics are float32 and stay so through ``.half()``, ``.to(dtype)``,
    loading and autocast.

    Args:
        num_embeddings: K, number of codes.
        embedding_dim: D, length of a code.
        commitment_weight: beta, factor of ``mse(x, sg(q))``.
        update: ``EMA(decay, epsilon, every)``, ``Gradient(weight)`` (the codebook is a Parameter
            for the optimizer), or None (frozen).
        estimator: "straight_through" or "rotation".
        metric: "l2" or "cosine" (the codebook's directions; ``quantized`` is a unit vector).
        init: "kmeans" (10 iterations on the first training batch), "uniform" in [-1/K, 1/K],
            "normal", or a (K, D) tensor. Until k-means has run, the codebook holds the "normal"
            draw.
        revive: ``Revive(...)`` replaces dead codes by rows of the batch, None never does. With
            ``update=None`` the default counts as None and any other value is refused.
        assign: None takes the nearest code, ``Sample(temperature, seed)`` draws one in training,
            ``TopK(k)`` takes the k nearest.
        regularize: losses that a training forward adds to ``loss``: a tuple of ``Entropy(...)``
            and ``Orthogonal(...)``, the latter for a ``Gradient`` codebook only.
        frozen: bool (K,), True for codes that never move: not by an update, not by k-means, not by
            revival. They are chosen and counted like the others. With a drawn ``init`` they keep
            what was drawn, or what is written into ``codebook``. With ``Gradient`` their gradient
            is zero; an optimizer with weight decay must leave the codebook out of it.
        channel_dim: dimension of x that holds the D channels: 1 for (B, D, *spatial), -1 for
            (B, T, D).
        process_group: the ranks that learn this codebook together, where torch.distributed runs
            with more than one; None for the default group, a group of one rank for none. Every
            rank of it runs the same number of training forwards. Kept by its name.
        backend: "native", "triton", "reference", or None for the first available one.

    Attributes:
        codebook: (K, D) float32, a Parameter with ``Gradient`` and a buffer otherwise.
        draws: int64 0-d buffer, what ``Sample`` counts its draws with; None without it.
        idle: (K,) int64, rows that the codebook has taken since each code was last chosen; None
            with ``update=None``.
        revived: () int64, codes revived so far; None with ``update=None``.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """

    draws: Tensor | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        commitment_weight: float = 0.25,
        update: Update = EMA(),  # noqa: B008 (frozen)
        estimator: str = "straight_through",
        metric: str = "l2",
        init: str | Tensor = "kmeans",
        revive: Revive | None = DEFAULT_REVIVE,
        assign: Assign = None,
        regularize: tuple[Regularizer, ...] = (),
        frozen: Tensor | None = None,
        channel_dim: int = 1,
        process_group: dist.ProcessGroup | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            update=update,
            metric=metric,
            init=init,
            revive=revive,
            frozen=frozen,
            process_group=process_group,
            backend=backend,
        )
        _checks.at_least("commitment_weight", commitment_weight, 0.0)
        _checks.one_of("estimator", estimator, _checks.ESTIMATORS)
        _checks.channel_option(channel_dim)
        check_assign(assign, num_embeddings)
        check_regularize(regularize, update)
        self.assign = assign
        self.regularize = regularize
        if isinstance(assign, Sample):
            self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        else:
            self.draws = None
        self.commitment_weight = float(commitment_weight)
        self.estimator = estimator
        self.channel_dim = channel_dim

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes x; in training mode also keeps its statistics.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage). With ``TopK(k)`` quantized has x's shape and
            one more axis of size k, the last, indices are (*positions, k), the loss and
            ``usage.mse`` are means over all k, and ``usage.counts`` counts the nearest.
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel = self._check(x, mask)
        if self.training:
            self._begin(x, mask, channel)
        out, sums = self._quantize(x, mask, channel)
        if not self.training:
            return out, []
        out = out._replace(loss=self._regularized(out.loss, x, mask, channel, out.usage.counts))
        candidates = self._candidates(x, mask, channel)
        return out, [(self, Statistics(out.usage.counts, sums, *candidates))]

    def _quantize(self, x: Tensor, mask: Tensor | None, channel: int) -> tuple[VQOutput, Tensor]:
        chosen = self._draw(x, mask, channel)  # before what it counts is read for ``moves``
        options: dict[str, Any] = {
            "commitment_weight": self.commitment_weight,
            "codebook_weight": self._codebook_weight,
            "estimator": self.estimator,
            "metric": self.metric,
            "mask": mask,
            "channel_dim": channel,
            "backend": self.backend,
            "moves": ops.count_both(self._moves, self.draws),
        }
        if isinstance(self.assign, TopK):
            return quantize_to_many(x, self._codes, self.assign.k, **options)
        return functional.quantize_with_sums(
            x,
            self._codes,
            self._packed(),
            statistics=self.training and isinstance(self.update, EMA),
            chosen=chosen,
            **options,
        )

    def _draw(self, x: Tensor, mask: Tensor | None, channel: int) -> Tensor | None:
        """The codes of this training forward, if they are drawn. The same ones in a recompute."""
        if not (self.training and isinstance(self.assign, Sample)):
            return None
        assert self.draws is not None
        ops.tick_(self.draws)
        return drawn_codes(
            x,
            self.codebook,
            mask,
            self.draws,
            seed=seed_of_rank(self.assign.seed, self._group),
            temperature=float(self.assign.temperature),
            metric=self.metric,
            channel_dim=channel,
            backend=self.backend,
        )

    def _regularized(
        self, loss: Tensor, x: Tensor, mask: Tensor | None, channel: int, counts: Tensor
    ) -> Tensor:
        """The loss of a training forward with those of ``regularize``."""
        options: dict[str, Any] = {"metric": self.metric, "backend": self.backend}
        for option in self.regularize:
            more = regularization(
                option, x, self._codes, mask, counts, channel_dim=channel, **options
            )
            loss = loss + more.to(loss.dtype)
        return loss

    @property
    def _many(self) -> TopK | None:
        return self.assign if isinstance(self.assign, TopK) else None

    def _codebooks(self) -> list[LearnedCodebook]:
        return [self]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the nearest codes: int64, positions of x. Changes no state.

        With ``TopK(k)``: (*positions, k), nearest first.
        """
        channel = self._check(x, None)
        if isinstance(self.assign, TopK):
            options = (self.metric, channel, self.backend)
            return search_many(x, self.codebook, self.assign.k, *options).indices
        return functional.search(
            x, self.codebook, self._packed(), self.metric, channel, self.backend
        ).indices

    def decode(self, indices: Tensor) -> Tensor:
        """Vectors of the codes, float32, channels at ``channel_dim``; index -1 gives zeros.

        Until the codebook moves this equals ``forward(x).quantized`` at valid positions, up to the
        rounding to x's dtype. Differentiable in a ``Gradient`` codebook.

        With ``TopK`` indices are (*positions, k'), for any k', and the vectors have the axis of
        size k' last, as ``quantized`` does: ``decode(indices[..., :1])`` are the nearest codes.
        """
        codebook, channel = self._codes, self.channel_dim
        if isinstance(self.assign, TopK):
            _checks.integers("indices", indices)
            if indices.ndim < 2:
                raise ValueError(
                    f"indices must have shape (*positions, k), got {tuple(indices.shape)}"
                )
            channel = _checks.channel_dim(channel, indices.ndim)
        if self.metric == "cosine":
            codebook = ops.NormalizeCodes.apply(codebook)
        return functional.lookup(indices, codebook, channel_dim=channel)

    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Runs the k-means initialisation on x now; does nothing on an initialised codebook.

        With several ranks it is a collective: on every rank, each with its own x.
        """
        self._initialise(x, mask, self._check(x, mask))

    @property
    def _codebook_weight(self) -> float:
        return float(self.update.weight) if isinstance(self.update, Gradient) else 0.0

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        """The channel dimension. Before any state moves: a bad argument must change nothing."""
        channel = _checks.vectors(x, self.embedding_dim, self.channel_dim)
        _checks.shaped("codebook", self.codebook, (self.num_embeddings, self.embedding_dim))
        _checks.same_device("x", x, "codebook", self.codebook)
        _checks.mask(mask, x, row_shape(x, channel))
        ops.dispatch.choose("vq_forward", x, self.codebook, self.backend)
        return channel

    def extra_repr(self) -> str:
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, "
            f"commitment_weight={self.commitment_weight}, update={self.update}, "
            f"estimator={self.estimator!r}, metric={self.metric!r}, revive={self.revive}, "
            f"assign={self.assign}, regularize={self.regularize}, "
            f"channel_dim={self.channel_dim}, backend={self.backend!r}"
        )
