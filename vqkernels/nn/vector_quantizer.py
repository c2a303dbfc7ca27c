"""VectorQuantizer: a codebook, the options of its update, and the state machine around them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqkernels import _checks, functional, ops
from vqkernels._layout import row_shape
from vqkernels.nn import _kmeans
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.options import EMA, Gradient, Revive, Update
from vqkernels.outputs import VQOutput

_INITS = ("kmeans", "uniform", "normal")
# What advance_ is given where the module has no such option: the usage average that revival reads
# when the optimizer trains the codebook, and limits that nothing reads without candidates.
_COUNTS_ONLY = EMA(decay=0.99)
_NO_REVIVAL = Revive()


class VectorQuantizer(FullPrecision):
    """Replaces each vector by its nearest code (van den Oord et al. 2017, arXiv 1711.00937).

    The values, losses and gradients are those of ``vqkernels.vector_quantize``; this module adds
    the codebook and how it learns. The codebook moves at one known place: a training forward
    stores its statistics when it ends, and the next one applies them when it starts; so does
    ``flush()``, and so does leaving training mode when an update is due. Until then
    ``decode(out.indices)`` reproduces ``out.quantized``, and a checkpointed region recomputes with
    the same codebook, provided that its backward comes before the next training forward: several
    checkpointed forwards per backward need ``EMA(every=...)`` of that number.
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
        revive: ``Revive(...)`` replaces dead codes by rows of the batch, None never does. A frozen
            codebook is never revived.
        channel_dim: dimension of x that holds the D channels: 1 for (B, D, *spatial), -1 for
            (B, T, D).
        backend: "native", "triton", "reference", or None for the first available one.

    Attributes:
        codebook: (K, D) float32, a Parameter with ``Gradient`` and a buffer otherwise.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
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
    _prepared: list[Tensor] | None
    _seen: tuple[int, int] | None  # where the codebook lay at the last call, and its version

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
        revive: Revive | None = Revive(),  # noqa: B008 (frozen)
        channel_dim: int = 1,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        _checks.integer_at_least("num_embeddings", num_embeddings, 1)
        _checks.integer_at_least("embedding_dim", embedding_dim, 1)
        _checks.at_least("commitment_weight", commitment_weight, 0.0)
        _checks.one_of("estimator", estimator, _checks.ESTIMATORS)
        _checks.one_of("metric", metric, _checks.METRICS)
        if not (update is None or isinstance(update, (EMA, Gradient))):
            raise TypeError(f"update must be EMA(...), Gradient(...) or None, got {update!r}")
        if not (revive is None or isinstance(revive, Revive)):
            raise TypeError(f"revive must be Revive(...) or None, got {revive!r}")
        if isinstance(channel_dim, bool) or not isinstance(channel_dim, int):
            raise TypeError(f"channel_dim must be an integer, got {channel_dim!r}")
        if backend is not None:
            _checks.one_of("backend", backend, ops.dispatch.BACKENDS)
        self.num_embeddings = int(num_embeddings)
        self.embedding_dim = int(embedding_dim)
        self.commitment_weight = float(commitment_weight)
        self.update = update
        self.estimator = estimator
        self.metric = metric
        self.revive = None if update is None else revive
        self.channel_dim = channel_dim
        self.backend = backend
        self._make_state(_initial_codebook(init, num_embeddings, embedding_dim))
        # A plain flag beside the buffer, so that the steps after init do not read the device.
        self._init_done = not (isinstance(init, str) and init == "kmeans")
        self.initialised.fill_(int(self._init_done))
        self._owner_key = ops.on_initialised(self._leave_init_out)
        self._drop_packed()

    def _make_state(self, codebook: Tensor) -> None:
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

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes x; in training mode also keeps its statistics.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage).
        """
        channel = self._check(x, mask)
        if self.training:
            if not self._init_done:
                self._initialise(x, mask, channel)
            self._advance(self._every)
        out, sums = functional.quantize_with_sums(
            x,
            self.codebook,
            self._packed(),
            commitment_weight=self.commitment_weight,
            codebook_weight=self._codebook_weight,
            estimator=self.estimator,
            metric=self.metric,
            mask=mask,
            channel_dim=channel,
            backend=self.backend,
            statistics=self.training and isinstance(self.update, EMA),
        )
        if self.training:
            self._observe(x, mask, channel, out.usage.counts, sums)
        return out

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the nearest codes: int64, positions of x. Changes no state."""
        channel = self._check(x, None)
        return functional.search(
            x, self.codebook, self._packed(), self.metric, channel, self.backend
        ).indices

    def decode(self, indices: Tensor) -> Tensor:
        """Vectors of the codes, float32, channels at ``channel_dim``; index -1 gives zeros.

        Until the codebook moves this equals ``forward(x).quantized`` at valid positions, up to the
        rounding to x's dtype. Differentiable in a ``Gradient`` codebook.
        """
        codebook = self.codebook
        if self.metric == "cosine":
            codebook = ops.NormalizeCodes.apply(codebook)
        return functional.lookup(indices, codebook, channel_dim=self.channel_dim)

    def flush(self) -> None:
        """Moves the codebook by whatever statistics are pending, due or not."""
        self._advance(1)

    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Runs the k-means initialisation on x now; does nothing on an initialised codebook."""
        channel = self._check(x, mask)
        if not self._init_done:
            self._initialise(x, mask, channel)

    def train(self, mode: bool = True) -> VectorQuantizer:
        if self.training and not mode:
            self._advance(self._every)
        super().train(mode)
        return self

    def _packed(self) -> list[Tensor] | None:
        """The codebook packed for the search, if it has not moved since the last call.

        Where it lies and its version only say when packing is worth it. No result depends on them:
        a search compares the packed copy with the codebook, and leaves it where they differ.
        """
        if torch.compiler.is_compiling():
            return self._prepared
        codebook = self.codebook
        if type(codebook) not in (Tensor, nn.Parameter):
            return None
        version = 0 if codebook.is_inference() else codebook._version
        seen = (codebook.data_ptr(), version)
        if self._seen != seen or (self.training and self.update is not None):
            self._drop_packed()
            self._seen = seen
        elif self._prepared is None:
            with torch.no_grad():
                codes = codebook.detach()
                if self.metric == "cosine":
                    codes, _ = ops.normalize_codes(codes)
                parts = ops.prepare(codes, self.metric, self.backend)
            if all(type(part) is Tensor for part in parts):  # not traced ones
                self._prepared = parts
        return self._prepared

    def _drop_packed(self) -> None:
        self._prepared = None
        self._seen = None

    def _leave_init_out(self) -> None:
        self._init_done = True

    def _apply(self, *args: Any, **kwargs: Any) -> VectorQuantizer:
        self._drop_packed()
        super()._apply(*args, **kwargs)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_prepared": None, "_seen": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A copy is told of its own codebook, not of the original's.
        self._owner_key = ops.on_initialised(self._leave_init_out)

    @property
    def _codebook_weight(self) -> float:
        return float(self.update.weight) if isinstance(self.update, Gradient) else 0.0

    @property
    def _every(self) -> int:
        return self.update.every if isinstance(self.update, EMA) else 1

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        """The channel dimension. Before any state moves: a bad argument must change nothing."""
        channel = _checks.vectors(x, self.embedding_dim, self.channel_dim)
        _checks.shaped("codebook", self.codebook, (self.num_embeddings, self.embedding_dim))
        _checks.same_device("x", x, "codebook", self.codebook)
        _checks.mask(mask, x, row_shape(x, channel))
        ops.dispatch.choose("vq_forward", x, self.codebook, self.backend)
        return channel

    @torch.no_grad()
    def _initialise(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        _kmeans.initialise_(
            self.codebook,
            self.cluster_size,
            self.embed_sum,
            self.initialised,
            self._owner_key,
            None,
            x.detach(),
            mask,
            metric=self.metric,
            channel_dim=channel,
            backend=self.backend,
        )

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
            None,
            None,
            None,
            ema.decay,
            ema.epsilon,
            steps_due,
            self.metric,
            revive.threshold,
            0,
            revive.every,
        )

    @torch.no_grad()
    def _observe(
        self, x: Tensor, mask: Tensor | None, channel: int, counts: Tensor, sums: Tensor
    ) -> None:
        rows = found = None
        if self.revive is not None:
            rows, found = ops.sample_rows(
                x.detach(),
                mask,
                self.clock,
                self.revive.candidates,
                self.revive.seed,
                self.metric,
                channel,
            )
        self._store(counts, sums, rows, found)

    @torch.no_grad()
    def _store(
        self, counts: Tensor, sums: Tensor | None, rows: Tensor | None, found: Tensor | None
    ) -> None:
        """Keeps the statistics and the candidates for revival of one training forward."""
        if self.pending_counts is None:
            return
        ops.observe_(
            self.pending_counts,
            self.pending_sums,
            self.pending_rows,
            self.pending_steps,
            counts,
            sums if self.pending_sums is not None else None,
            rows,
            found,
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._drop_packed()
        super()._load_from_state_dict(*args, **kwargs)
        if not self.initialised.is_meta:
            self._init_done = bool(self.initialised)

    def extra_repr(self) -> str:
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, "
            f"commitment_weight={self.commitment_weight}, update={self.update}, "
            f"estimator={self.estimator!r}, metric={self.metric!r}, revive={self.revive}, "
            f"channel_dim={self.channel_dim}, backend={self.backend!r}"
        )


def _initial_codebook(init: str | Tensor, k: int, d: int) -> Tensor:
    if isinstance(init, Tensor):
        _checks.codebook(init, "init")
        _checks.shaped("init", init, (k, d))
        if not init.is_meta and not init.isfinite().all():
            raise ValueError("init must be finite, got a NaN or an infinity")
        return init.detach().to(torch.float32, copy=True)
    if not isinstance(init, str):
        raise TypeError(f"init must be a string or a (K, D) tensor, got {type(init).__name__}")
    _checks.one_of("init", init, _INITS)
    if init == "uniform":
        return torch.empty(k, d, dtype=torch.float32).uniform_(-1.0 / k, 1.0 / k)
    return torch.randn(k, d, dtype=torch.float32)
