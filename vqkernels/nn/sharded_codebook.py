"""ShardedCodebook: a quantizer whose codes are split over the ranks of a process group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._given_codes import quantize_to_given
from vqkernels._layout import row_shape
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.nn._learned_codebook import DEFAULT_REVIVE, LearnedCodebook
from vqkernels.nn._quantizer import Learnt, Quantizer
from vqkernels.nn._shard import Shard
from vqkernels.options import EMA, Gradient, Revive
from vqkernels.outputs import VQOutput


class _Rows(NamedTuple):
    """What the ranks search together: x itself, or the rows of all of them."""

    x: Tensor
    mask: Tensor | None
    channel: int
    own: Tensor | None  # which of the rows are this rank's; None for all


class ShardedCodebook(FullPrecision, Quantizer):
    """``VectorQuantizer`` for codebooks that do not fit, or are too slow, on one device.

    The K codes are split evenly over the W ranks of ``group``, in order; the first K mod W ranks
    hold one more. Every rank searches its own, one collective finds the nearest of all: the
    smallest (F, index), with F the float64 value that ``vqkernels.nearest_code`` defines. Indices,
    ``quantized``, loss and gradient are those of a ``VectorQuantizer`` that holds all codes.
    Nothing has both K and D as factors on one rank, or both N and K.

    Every rank of ``group`` passes the same x and mask (tensor parallelism). Different values are
    found out: RuntimeError on the CPU; on CUDA, where reading would stall the stream, NaN in
    ``quantized`` and the loss. Different shapes make torch.distributed fail, or wait until it
    times out; different masks are not found out. With ``gather=True`` each rank passes its own x
    (data parallelism) of any number of rows, none included, but of one dtype: rows and masks are
    gathered first, and results and loss are those of this rank's rows.

    All calls but ``flush`` and ``train`` are collectives, evaluation, ``encode`` and ``decode``
    included, and so are recomputes in a checkpointed region, which need the indices again: all
    ranks make the same calls in the same order. After the initialisation no step waits for the
    device but for the sizes that ``gather=True`` exchanges. ``torch.compile`` splits the graph
    there, unless k-means is done and ``torch._dynamo.config.capture_dynamic_output_shape_ops``
    set.

    Learning is that of the whole codebook, up to float32 rounding of sums over all codes: sizes
    are smoothed and dead codes told by the mass of all ranks, and k-means takes the same rows and
    seeds. Each rank revives its codes by its own part of the candidates, so that no row becomes
    two codes.

    The state is no buffer of this module: ``DistributedDataParallel`` gives every rank the
    buffers of the first one, and the other shards would be lost. It follows ``.to``, is saved and
    loaded. ``state_dict`` holds this rank's codes, and ``part`` says which of how many: save one
    file per rank, and load it on the rank of that number in a group of that size. For the same
    reason ``vqkernels.watch`` does not find it.

    Args:
        num_embeddings: K, codes of all ranks together, at least W.
        embedding_dim: D, length of a code.
        group: the ranks that share the codebook; None for the default group. Without
            ``torch.distributed`` this process holds all codes. Kept by its name.
        gather: every rank passes its own x.
        commitment_weight, estimator, metric, channel_dim, backend: as in ``VectorQuantizer``.
        update: ``EMA(decay, epsilon, every)`` or None (frozen).
        init: "kmeans", "uniform", "normal", or all codes, a (K, D) tensor that is the same on all
            ranks. The ranks draw in turns, so that equal seeds give no equal codes.
        revive: as in ``VectorQuantizer``; ``candidates`` are shared out to the ranks.

    Attributes:
        codebook: (K_r, D) float32, the codes of this rank.
        idle: (K_r,) int64, as in ``VectorQuantizer``; None with ``update=None``.
        revived: () int64, codes of this rank revived so far; None with ``update=None``.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
        RuntimeError: ``group`` is not the one that the codes were split over.
    """

    _shard: Shard

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        group: dist.ProcessGroup | None = None,
        gather: bool = False,
        commitment_weight: float = 0.25,
        update: EMA | None = EMA(),  # noqa: B008 (frozen)
        estimator: str = "straight_through",
        metric: str = "l2",
        init: str | Tensor = "kmeans",
        revive: Revive | None = DEFAULT_REVIVE,
        channel_dim: int = 1,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        _checks.boolean("gather", gather)
        _checks.at_least("commitment_weight", commitment_weight, 0.0)
        _checks.one_of("estimator", estimator, _checks.ESTIMATORS)
        _checks.channel_option(channel_dim)
        if isinstance(update, Gradient):
            raise ValueError(
                f"update must be EMA(...) or None for ShardedCodebook, got {update!r}"
            )
        # Not as an attribute: torch would register it, and whoever broadcasts buffers find it.
        self.__dict__["_shard"] = Shard(
            num_embeddings,
            embedding_dim,
            group=group,
            update=update,
            metric=metric,
            init=init,
            revive=revive,
            backend=backend,
        )
        self.num_embeddings = int(num_embeddings)
        self.embedding_dim = int(embedding_dim)
        self.gather = gather
        self.commitment_weight = float(commitment_weight)
        self.estimator = estimator
        self.channel_dim = channel_dim

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes x; in training mode also keeps its statistics.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage): of this rank's x; ``usage.counts`` is (K,).
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel, shard = self._check(x, mask), self._shard
        rows = self._rows(x, mask, channel)
        if self.training:
            shard._begin(rows.x, rows.mask, rows.channel)
        vectors = shard._vectors
        indices, alike = shard.nearest(rows.x, rows.channel, vectors)
        codes = torch.where(alike, shard.rows(indices, vectors), torch.nan)
        learnt: Learnt = []
        if self.training and shard.update is not None:
            learnt = [(shard, shard.statistics(rows.x, indices, rows.mask, rows.channel))]
        if rows.own is not None:
            codes = codes[rows.own]
            indices = indices[rows.own].reshape(row_shape(x, channel))
        out = quantize_to_given(
            x,
            codes,
            indices,
            self.num_embeddings,
            commitment_weight=self.commitment_weight,
            estimator=self.estimator,
            metric=shard.metric,
            mask=mask,
            channel_dim=channel,
            backend=shard.backend,
            moves=shard._moves,
        )
        return out, learnt

    def _rows(self, x: Tensor, mask: Tensor | None, channel: int) -> _Rows:
        group = self._shard.group if self.gather else None
        if group is None:
            return _Rows(x, mask, channel, None)
        rows, kept, own = ops.gather_rows(x.detach(), mask, channel, group.name)
        return _Rows(rows, kept, 1, own)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the nearest codes: int64, positions of x. Changes no state. A collective."""
        channel, shard = self._check(x, None), self._shard
        rows = self._rows(x, None, channel)
        indices, _ = shard.nearest(rows.x, rows.channel, shard._vectors)
        return indices if rows.own is None else indices[rows.own].reshape(row_shape(x, channel))

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        """Vectors of the codes, float32, channels at ``channel_dim``; index -1 gives zeros.

        A collective, to which every rank passes the same indices, or with ``gather=True`` its
        own. Not differentiable. An index outside of [-1, K) raises ValueError on the CPU and
        gives a NaN vector on CUDA.
        """
        _checks.indices(indices)
        shard = self._shard
        _checks.same_device("indices", indices, "codebook", shard.codebook)
        channel = _checks.channel_dim(self.channel_dim, indices.ndim + 1)
        flat = indices.reshape(-1, 1).long()
        rows = self._rows(flat, None, 1)
        vectors = shard.rows(rows.x, shard._vectors)
        vectors = vectors if rows.own is None else vectors[rows.own]
        return (
            vectors.reshape(*indices.shape, self.embedding_dim).movedim(-1, channel).contiguous()
        )

    @torch.no_grad()
    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Runs the k-means initialisation on x now; does nothing on an initialised codebook.

        A collective.
        """
        rows = self._rows(x, mask, self._check(x, mask))
        self._shard._initialise(rows.x, rows.mask, rows.channel)

    def _codebooks(self) -> list[LearnedCodebook]:
        return [self._shard]

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        shard = self._shard
        channel = _checks.vectors(x, self.embedding_dim, self.channel_dim)
        _checks.same_device("x", x, "codebook", shard.codebook)
        _checks.mask(mask, x, row_shape(x, channel))
        ops.dispatch.choose("vq_forward", x, shard.codebook, shard.backend)
        return channel

    @property
    def codebook(self) -> Tensor:
        return self._shard.codebook

    @property
    def idle(self) -> Tensor | None:
        return self._shard.idle

    @property
    def revived(self) -> Tensor | None:
        return self._shard.revived

    @property
    def process_group(self) -> dist.ProcessGroup | None:
        """The ranks that share the codebook; None for the default group."""
        return self._shard.process_group

    @process_group.setter
    def process_group(self, process_group: dist.ProcessGroup | None) -> None:
        self._shard.process_group = process_group

    def train(self, mode: bool = True) -> ShardedCodebook:
        self._shard.train(mode)
        super().train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ShardedCodebook:
        self._shard._apply(fn, recurse)
        super()._apply(fn, recurse)
        return self

    def _save_to_state_dict(self, *arguments: Any) -> None:
        self._shard._save_to_state_dict(*arguments)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._shard._load_from_state_dict(*arguments)

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        return self._shard._misfits(state_dict, prefix)

    def extra_repr(self) -> str:
        shard = self._shard
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, gather={self.gather}, "
            f"commitment_weight={self.commitment_weight}, update={shard.update}, "
            f"estimator={self.estimator!r}, metric={shard.metric!r}, revive={shard.revive}, "
            f"channel_dim={self.channel_dim}, backend={shard.backend!r}"
        )
