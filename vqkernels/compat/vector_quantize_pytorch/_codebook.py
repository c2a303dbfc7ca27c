"""Codebook: the codes, in one table or one per head, and how they learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import distributed, functional, ops
from vqkernels._assign import drawn_codes
from vqkernels.distributed import Group
from vqkernels.nn import _kmeans
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.outputs import VQOutput

_SEED = 0  # of what is drawn by a hash: candidates for revival, and codes


class Codebook(FullPrecision):
    """H tables of K codes of width D, with the names and shapes of theirs.

    They move when a training forward ends, as theirs do. That is why this is no
    ``vqkernels.nn.VectorQuantizer``, which moves its one table at the next forward: theirs may be
    several tables in one tensor, a Parameter that a moving average writes to all the same, or one
    whose averages go on while it waits for ``update_ema()``.

    Attributes:
        embed: (H, K, D) float32, the codes: a Parameter with ``learnable_codebook``.
        embed_avg: (H, K, D) float32, moving average of the sum of the rows of each code.
        cluster_size: (H, K) float32, moving average of their number.
        initted: () bool, whether k-means has run or need not.
        clock: (H,) int64, how often each table has moved. Not in the state_dict.
        draws: () int64, how often codes were drawn; None where they never are.
        settings: as of ``Peer``.
    """

    settings: ClassVar[tuple[str, ...]] = (
        "decay",
        "eps",
        "threshold_ema_dead_code",
        "sample_codebook_temp",
        "ema_update",
        "manual_ema_update",
    )

    initted: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    embed: Tensor
    clock: Tensor
    draws: Tensor | None

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        num_codebooks: int,
        *,
        kmeans_init: bool,
        kmeans_iters: int,
        decay: float,
        eps: float,
        threshold_ema_dead_code: float,
        sync: bool | None,
        learnable_codebook: bool,
        stochastic: bool,
        sample_codebook_temp: float,
        ema_update: bool,
        manual_ema_update: bool,
        use_cosine_sim: bool,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.codebook_size = codebook_size
        self.num_codebooks = num_codebooks
        self.kmeans_iters = kmeans_iters
        self.decay = decay
        self.eps = eps
        self.threshold_ema_dead_code = threshold_ema_dead_code
        self.sync = sync
        self.learnable_codebook = learnable_codebook
        self.stochastic = stochastic
        self.sample_codebook_temp = sample_codebook_temp
        self.ema_update = ema_update
        self.manual_ema_update = manual_ema_update
        self.use_cosine_sim = use_cosine_sim
        embed = torch.zeros(num_codebooks, codebook_size, dim)
        if not kmeans_init:
            nn.init.kaiming_uniform_(embed)
            if use_cosine_sim:
                embed = nn.functional.normalize(embed, dim=-1)
        counter = torch.zeros((), dtype=torch.int64)
        self.register_buffer("initted", torch.tensor(not kmeans_init))
        self.register_buffer("cluster_size", torch.ones(num_codebooks, codebook_size))
        self.register_buffer("embed_avg", embed.clone())
        if learnable_codebook:
            self.embed = nn.Parameter(embed)
        else:
            self.register_buffer("embed", embed)
        self.register_buffer("clock", counter.repeat(num_codebooks), persistent=False)
        if stochastic:
            self.register_buffer("draws", counter, persistent=False)
        else:
            self.draws = None
        # Plain flags beside the state, so that the steps after the first do not read the device.
        self._init_done = not kmeans_init
        self._alike = False
        self._owner_key = ops.register_owner(self)

    @property
    def has_dead_code_replacement(self) -> bool:
        return self.threshold_ema_dead_code > 0

    @property
    def ready(self) -> bool:
        """Whether k-means has run or need not."""
        return self._init_done

    @property
    def metric(self) -> str:
        return "cosine" if self.use_cosine_sim else "l2"

    def start(self, tables: Sequence[Tensor], mask: Tensor | None) -> None:
        """Gives all ranks one state and runs k-means, where these are still to be done.

        ``tables`` are the vectors that each table quantizes, channels last. As theirs, an
        evaluation initialises too: until then all codes are zero. It does so for this rank alone.
        """
        group = self.group if self.training else None
        with torch.no_grad():
            if group is not None and not self._alike:
                # k-means stays in this step, which acts only where it is to be done: what this
                # rank knows of that before may differ from what the others do.
                state = [self.embed.detach(), self.cluster_size, self.embed_avg, self.clock]
                ops.replicate_(state, [self.initted], [self._owner_key], group.name)
            elif self._init_done:
                return
            flags = self.initted.long().repeat(self.num_codebooks)
            for number, x in enumerate(tables):
                _kmeans.initialise_(
                    self.embed.detach()[number],
                    self.cluster_size[number],
                    self.embed_avg[number],
                    flags[number],
                    self._owner_key,
                    None,
                    x.detach(),
                    mask,
                    metric=self.metric,
                    channel_dim=x.ndim - 1,
                    backend=None,
                    group=group,
                    iterations=self.kmeans_iters,
                )
            self.initted.copy_(flags.all())

    def quantize(
        self,
        number: int,
        x: Tensor,
        mask: Tensor | None,
        *,
        estimator: str,
        by_gradient: bool,
        statistics: bool,
        temperature: float | None,
    ) -> tuple[VQOutput, Tensor]:
        """What table ``number`` makes of x, (*positions, D), and the sum of the rows of each code.

        The loss is mse(x, sg(q)), and, ``by_gradient``, mse(sg(x), q) on top.
        """
        codes = self.embed[number]
        return functional.quantize_with_sums(
            x,
            codes if by_gradient else codes.detach(),
            None,
            commitment_weight=1.0,
            codebook_weight=float(by_gradient),
            estimator=estimator,
            metric=self.metric,
            mask=mask,
            channel_dim=x.ndim - 1,
            backend=None,
            statistics=statistics,
            chosen=self._draw(number, x, mask, temperature),
            moves=ops.count_both(self.clock[number], self.draws),
        )

    def _draw(
        self, number: int, x: Tensor, mask: Tensor | None, temperature: float | None
    ) -> Tensor | None:
        """Codes drawn with log-probabilities cos / temperature, in training; None for nearest."""
        temperature = self.sample_codebook_temp if temperature is None else temperature
        if self.draws is None or not self.training or temperature <= 0:
            return None
        ops.tick_(self.draws)
        return drawn_codes(
            x,
            self.embed[number],
            mask,
            self.draws,
            seed=distributed.seed_of_rank(_SEED, self.group),
            temperature=float(temperature),
            metric=self.metric,
            channel_dim=x.ndim - 1,
            backend=None,
        )

    def values(self, number: int, out: VQOutput) -> Tensor:
        """``out.quantized`` without a gradient to x; to the codes, where they are a Parameter."""
        quantized = out.quantized.detach()
        if not self.embed.requires_grad:
            return quantized
        codes = ops.Lookup.apply(out.indices, self.embed[number], out.indices.ndim)
        codes = codes.to(quantized.dtype)
        return codes + (quantized - codes).detach()

    @torch.no_grad()
    def candidates(
        self, number: int, x: Tensor, mask: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """A row of x for every code that may be dead, and how many of them are usable."""
        if not self.has_dead_code_replacement:
            return None, None
        return ops.sample_rows(
            x.detach(),
            mask,
            self.clock[number],
            self.codebook_size,
            _SEED,
            self.metric,
            x.ndim - 1,
        )

    @torch.no_grad()
    def take_in(
        self, number: int, counts: Tensor, sums: Tensor, *, moves: bool, rows: Tensor | None = None
    ) -> None:
        """The averages of table ``number`` take in a batch; then the codes follow, if it ``moves``
        them, and dead ones are replaced by ``rows``, in turn.
        """
        codes, clock = self.embed.detach()[number], self.clock[number]
        if not moves:
            codes, clock = codes.clone(), clock.clone()
        size, average = self.cluster_size[number], self.embed_avg[number]
        due = (counts.sum() > 0).long()
        counts = counts.to(size.dtype)
        taken = rows if moves else None
        self._advance(codes, size, average, counts, sums, taken, due, clock, decay=self.decay)
        if not moves and rows is not None:
            self.revive(number, rows)

    @torch.no_grad()
    def revive(self, number: int, rows: Tensor) -> None:
        """Replaces the dead codes of table ``number`` by ``rows``, in turn."""
        codes, size = self.embed.detach()[number], self.cluster_size[number]
        before, nothing, due = size.clone(), torch.zeros_like(size), self.clock.new_ones(())
        self._advance(codes, size, None, nothing, None, rows, due, self.clock[number], decay=1.0)
        average = self.embed_avg[number]
        revived = torch.where((size != before)[:, None], codes * size[:, None], average)
        average.copy_(revived)

    @torch.no_grad()
    def update_ema(self) -> None:
        """Moves the codes to where the averages are: what ``manual_ema_update`` leaves undone."""
        for number in range(self.num_codebooks):
            size, average = self.cluster_size[number], self.embed_avg[number]
            nothing = (torch.zeros_like(size), torch.zeros_like(average))
            codes, due = self.embed.detach()[number], self.clock.new_ones(())
            self._advance(codes, size, average, *nothing, None, due, self.clock[number], decay=1.0)

    def _advance(
        self,
        codes: Tensor,
        size: Tensor,
        average: Tensor | None,
        counts: Tensor,
        sums: Tensor | None,
        rows: Tensor | None,
        steps: Tensor,
        clock: Tensor,
        *,
        decay: float,
    ) -> None:
        """``advance_`` of one table: by counts and sums, then by rows, if ``steps`` is 1."""
        state = (codes, size, average, counts, sums, rows, steps, clock)
        threshold = float(self.threshold_ema_dead_code)
        options = (decay, self.eps, 1, self.metric, threshold, 0, 1)
        ops.advance_(*state, None, None, None, *options)

    @property
    def group(self) -> Group | None:
        """The ranks that learn this codebook together; None for this one alone."""
        return None if self.sync is False else distributed.group_of(None)

    def _initialisation_is(self, done: bool) -> None:
        self._init_done = done

    def _ranks_are_alike(self) -> None:
        self._alike = True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_alike": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._owner_key = ops.register_owner(self)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.initted.is_meta:
            self._init_done = bool(self.initted)

    def extra_repr(self) -> str:
        return f"{self.num_codebooks} x {self.codebook_size} x {self.dim}"
