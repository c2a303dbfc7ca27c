"""LearnedCodebook: a codebook, its statistics, and the state machine around them."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqkernels import _checks, distributed, ops
from vqkernels._health import codebook_health
from vqkernels.distributed import Group, Statistics
from vqkernels.nn import _kmeans, _ranks
from vqkernels.nn._initial_codes import initial_codes
from vqkernels.nn._packing import Packing
from vqkernels.options import EMA, Gradient, Revive, Update
from vqkernels.outputs import CodebookHealth

# What advance_ is given where the module has no such option: the usage average that revival reads
# when the optimizer trains the codebook, and limits that nothing reads without candidates.
_COUNTS_ONLY = EMA(decay=0.99)
_NO_REVIVAL = Revive()
# The default of ``revive``, told from an equal option that somebody asked for by its identity.
DEFAULT_REVIVE = Revive()


class LearnedCodebook(Packing):
    """The codes of one quantizer and how they learn.

    They move at one known place: a training forward stores its statistics when it ends
    (``_store``), and the next one applies them when it starts (``_begin``); so does ``flush()``,
    and so does leaving training mode when an update is due.

    Args:
        num_embeddings: K, number of codes.
        embedding_dim: D, length of a code.
        update, metric, init, revive, frozen, process_group, backend: as in ``VectorQuantizer``.
    """

    codebook: Tensor
    cluster_size: Tensor | None
    embed_sum: Tensor | None
    pending_counts: Tensor | None
    pending_sums: Tensor | None
    pending_rows: Tensor | None
    pending_steps: Tensor
    initialised: Tensor
    clock: Tensor
    idle: Tensor | None
    revived: Tensor | None
    frozen: Tensor | None
    _alike: bool  # whether the ranks of the group have been given one state
    _kmeans_iterations: int = 10

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        update: Update,
        metric: str,
        init: str | Tensor,
        revive: Revive | None,
        frozen: Tensor | None,
        process_group: dist.ProcessGroup | None,
        backend: str | None,
    ) -> None:
        super().__init__()
        _checks.integer_at_least("num_embeddings", num_embeddings, 1)
        _checks.integer_at_least("embedding_dim", embedding_dim, 1)
        _checks.one_of("metric", metric, _checks.METRICS)
        if not (update is None or isinstance(update, (EMA, Gradient))):
            raise TypeError(f"update must be EMA(...), Gradient(...) or None, got {update!r}")
        if not (revive is None or isinstance(revive, Revive)):
            raise TypeError(f"revive must be Revive(...) or None, got {revive!r}")
        if update is None and revive is not None and revive is not DEFAULT_REVIVE:
            raise ValueError(
                f"revive must be None with update=None, which never moves a code, got {revive!r}"
            )
        if frozen is not None:
            _checks.booleans("frozen", frozen)
            _checks.shaped("frozen", frozen, (num_embeddings,))
            if update is None:
                raise ValueError(
                    "frozen must be None with update=None, which freezes every code, got a tensor"
                )
        if backend is not None:
            _checks.one_of("backend", backend, ops.dispatch.BACKENDS)
        self.num_embeddings = int(num_embeddings)
        self.embedding_dim = int(embedding_dim)
        self.update = update
        self.metric = metric
        self.revive = None if update is None else revive
        self.backend = backend
        self.process_group = process_group
        self._make_state(initial_codes(init, num_embeddings, embedding_dim), frozen)
        # A plain flag beside the buffer, so that the steps after init do not read the device.
        self._init_done = not (isinstance(init, str) and init == "kmeans")
        self.initialised.fill_(int(self._init_done))
        self._owner_key = ops.register_owner(self)

    def _make_state(self, codebook: Tensor, frozen: Tensor | None) -> None:
        k = codebook.shape[0]
        ema, trained = isinstance(self.update, EMA), self.update is not None
        if isinstance(self.update, Gradient):
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        rows = None
        if self.revive is not None:  # infinite: no candidate has been seen
            rows = codebook.new_full((self.revive.candidates, codebook.shape[1]), torch.inf)
        counter = torch.zeros((), dtype=torch.int64)
        self.register_buffer("cluster_size", codebook.new_ones(k) if trained else None)
        directions = ops.normalize_codes(codebook)[0] if self.metric == "cosine" else codebook
        self.register_buffer("embed_sum", directions.clone() if ema else None)
        self.register_buffer("pending_counts", codebook.new_zeros(k) if trained else None)
        self.register_buffer("pending_sums", torch.zeros_like(codebook) if ema else None)
        self.register_buffer("pending_rows", rows)
        self.register_buffer("pending_steps", counter.clone())
        self.register_buffer("initialised", counter.clone())
        self.register_buffer("clock", counter.clone())
        idle = torch.zeros(k, dtype=torch.int64, device=codebook.device)
        self.register_buffer("idle", idle if trained else None)
        self.register_buffer("revived", counter.clone() if trained else None)
        if frozen is not None:
            frozen = frozen.detach().to(codebook.device, torch.int64, copy=True)
        self.register_buffer("frozen", frozen)
        for name in [name for name, value in self._buffers.items() if value is None]:
            delattr(self, name)  # torch.export counts it among the inputs that the graph has
            setattr(self, name, None)

    def flush(self) -> None:
        """Moves the codebook by whatever statistics are pending, due or not."""
        self._advance_between_forwards(1)

    def health(self, window: int | None = None) -> CodebookHealth:
        """How well the codes are used, from the statistics of training. Reads the device.

        Args:
            window: rows, at least 1; None takes 100 per code.

        Raises:
            ValueError: the codebook keeps no statistics (``update=None``), or a bad window.
        """
        if window is not None:
            _checks.integer_at_least("window", window, 1)
        if self.cluster_size is None or self.idle is None:
            raise ValueError("update must be EMA(...) or Gradient(...) for health, got None")
        assert self.pending_counts is not None
        assert self.revived is not None
        counts = (self.cluster_size, self.idle, self.pending_counts, self.revived)
        return codebook_health(*counts, self.frozen, self.revive, window)

    def _begin(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        """What a training forward does first: initialises the codebook, or moves it if due."""
        self._initialise(x, mask, channel)
        self._advance(self._every)

    def train(self, mode: bool = True) -> LearnedCodebook:
        # A Parameter that several ranks hold moves only where all of them are: in a forward.
        # Evaluation on one rank must not revive its codes alone.
        shared = self._group_name is not None or self._group is not None
        stays = shared and isinstance(self.update, Gradient)
        if self.training and not mode and not stays:
            self._advance_between_forwards(self._every)
        super().train(mode)
        return self

    def _advance_between_forwards(self, steps_due: int) -> None:
        """Leaves a codebook to the next training forward that FSDP has sharded until then."""
        if not hasattr(self.codebook, "to_local"):
            self._advance(steps_due)

    @property
    def _codes(self) -> Tensor:
        """The codebook as a forward uses it: without a gradient of its frozen codes."""
        if self.frozen is None or not isinstance(self.update, Gradient):
            return self.codebook
        return torch.where(self.frozen[:, None] != 0, self.codebook.detach(), self.codebook)

    @property
    def _every(self) -> int:
        return self.update.every if isinstance(self.update, EMA) else 1

    @property
    def _moves(self) -> Tensor | None:
        """What counts the moves that the codes make by themselves; None if they make none."""
        if isinstance(self.update, EMA):
            return self.clock
        return None if self.revive is None else self.revived

    @torch.no_grad()
    def _advance(self, steps_due: int) -> None:
        if self.cluster_size is None or self.pending_counts is None:
            return
        ema = self.update if isinstance(self.update, EMA) else _COUNTS_ONLY
        revive = self.revive or _NO_REVIVAL
        ops.advance_(
            self.codebook,
            self.cluster_size,
            self.embed_sum,
            self.pending_counts,
            self.pending_sums,
            self.pending_rows,
            self.pending_steps,
            self.clock,
            self.idle,
            self.revived,
            self.frozen,
            ema.decay,
            ema.epsilon,
            steps_due,
            self.metric,
            revive.threshold,
            math.ceil((revive.age or 0.0) * self.num_embeddings),
            revive.every,
            *self._of_the_whole(),
        )

    def _of_the_whole(self) -> tuple[Any, ...]:
        """What ``advance_`` is told where these codes are a part of a codebook."""
        return ()

    @property
    def process_group(self) -> dist.ProcessGroup | None:
        """The ranks that learn this codebook together; None for the default group."""
        return None if self._group_name is None else distributed.resolve(self._group_name)

    @process_group.setter
    def process_group(self, process_group: dist.ProcessGroup | None) -> None:
        self._group_name = distributed.name_of(process_group)
        self._alike = False

    @property
    def _group(self) -> Group | None:
        return distributed.group_of(self._group_name)

    def _state_but_initialised(self) -> list[Tensor]:
        tensors = [*self.parameters(recurse=False), *self.buffers(recurse=False)]
        return [tensor for tensor in tensors if tensor is not self.initialised]

    @property
    def _init_open(self) -> bool:
        """Whether k-means may have to run.

        Until the ranks are alike, what this one knows says nothing about the others, and a
        compiled step that left k-means out would leave out its collectives.
        """
        return not self._init_done or (not self._alike and self._group is not None)

    def _initialise(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        _ranks.start_alike([self])
        self._run_kmeans(x, mask, channel)

    @torch.no_grad()
    def _run_kmeans(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        if not self._init_open:
            return
        _kmeans.initialise_(
            self.codebook,
            self.cluster_size,
            self.embed_sum,
            self.initialised,
            self._owner_key,
            self.frozen,
            x.detach(),
            mask,
            metric=self.metric,
            channel_dim=channel,
            backend=self.backend,
            group=self._group,
            iterations=self._kmeans_iterations,
        )

    @torch.no_grad()
    def _candidates(
        self, x: Tensor, mask: Tensor | None, channel: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Rows of x that may revive a code, and how many of them are usable."""
        if self.revive is None:
            return None, None
        count, seed = self.revive.candidates, distributed.seed_of_rank(self.revive.seed, None)
        return ops.sample_rows(x.detach(), mask, self.clock, count, seed, self.metric, channel)

    @torch.no_grad()
    def _store(self, statistics: Statistics) -> None:
        """Keeps the statistics of one training forward until the codebook moves."""
        if self.pending_counts is None:
            return
        ops.observe_(
            self.pending_counts,
            self.pending_sums,
            self.pending_rows,
            self.pending_steps,
            statistics.counts,
            statistics.sums if self.pending_sums is not None else None,
            statistics.rows,
            statistics.found,
            *self._totals(statistics),
        )

    def _totals(self, statistics: Statistics) -> tuple[Tensor, ...]:
        """What ``observe_`` is told where these codes are a part of a codebook."""
        return ()

    def _initialisation_is(self, done: bool) -> None:
        self._init_done = done

    def _ranks_are_alike(self) -> None:
        self._alike = True

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_alike": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A copy is told of its own codebook, not of the original's.
        self._owner_key = ops.register_owner(self)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.initialised.is_meta:
            self._init_done = bool(self.initialised)
