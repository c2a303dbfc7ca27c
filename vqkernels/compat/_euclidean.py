"""What encodec and audiocraft share: EMA codebooks, and levels of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels.compat._codebook import PeerCodebook
from vqkernels.compat._peer import Peer
from vqkernels.compat._residual_codes import residual_codes
from vqkernels.options import EMA, Revive
from vqkernels.outputs import VQOutput


class EuclideanCodebookBase(Peer, PeerCodebook):
    """An EMA codebook with channels last, whose averages start at no rows at all.

    Args:
        dim: D, length of a code.
        codebook_size: K, number of codes.
        kmeans_init: the first forward, in training or not, runs k-means on its rows.
        kmeans_iters: iterations of it.
        decay: of the moving averages.
        epsilon: Laplace smoothing of the cluster sizes, in rows.
        threshold_ema_dead_code: codes with an average of fewer rows per step are replaced by rows
            of the batch; 0 replaces none.
        bug_compatible: True does what theirs does, with its two slips: after k-means ``embed_avg``
            holds the centroids and not the sums of their rows, so that the first update pulls the
            codes to the origin; and the replacement of dead codes is undone by the update of the
            same step, so none takes place. False corrects both: dead is then a code below
            min(threshold, a quarter of the mean size).
    """

    codebook_key: ClassVar[str] = "embed"
    their_names: ClassVar[dict[str, str]] = {
        "initialised": "inited",
        "cluster_size": "cluster_size",
        "codebook": "embed",
        "embed_sum": "embed_avg",
    }

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        kmeans_init: bool,
        kmeans_iters: int,
        decay: float,
        epsilon: float,
        threshold_ema_dead_code: float,
        bug_compatible: bool,
    ) -> None:
        codes = torch.zeros(codebook_size, dim)
        if not kmeans_init:
            nn.init.kaiming_uniform_(codes)
        revives = threshold_ema_dead_code > 0 and not bug_compatible
        super().__init__(
            codebook_size,
            dim,
            commitment_weight=1.0,
            update=EMA(decay, epsilon),
            init=codes,
            revive=Revive(float(threshold_ema_dead_code), age=None) if revives else None,
            channel_dim=-1,
        )
        self.cluster_size.zero_()  # type: ignore[union-attr]
        self._decoded = self.codebook.dtype  # of codes: the state itself stays float32
        self.codebook_size = codebook_size
        self.decay = decay
        self.epsilon = epsilon
        self.kmeans_iters = self._kmeans_iterations = kmeans_iters
        self.threshold_ema_dead_code = threshold_ema_dead_code
        self.bug_compatible = bug_compatible
        if kmeans_init:
            self.initialised.zero_()
            self._initialisation_is(False)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "dim": theirs.embed.shape[1],
            "codebook_size": theirs.codebook_size,
            "kmeans_init": not bool(theirs.inited),
            "kmeans_iters": theirs.kmeans_iters,
            "decay": theirs.decay,
            "epsilon": theirs.epsilon,
            "threshold_ema_dead_code": theirs.threshold_ema_dead_code,
        }

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Codes of x, (*positions, D), and their indices. No gradient goes to x."""
        out = self.step(x)
        return out.quantized.detach(), out.indices

    def step(self, x: Tensor) -> VQOutput:
        """``forward`` with the gradient and the mean squared error: its ``loss``."""
        if not self.training and not self._init_done:
            self.init_codebook(x)
        return PeerCodebook.forward(self, x)

    def decode(self, indices: Tensor) -> Tensor:
        """Codes of indices (*positions): (*positions, D), in the dtype given to the model."""
        return super().decode(indices).to(self._decoded)

    def quantize(self, x: Tensor) -> Tensor:
        """Indices (N,) of the rows of x, (N, D)."""
        return self.encode(x)

    def dequantize(self, embed_ind: Tensor) -> Tensor:
        """Codes of indices (*positions): (*positions, D)."""
        return self.decode(embed_ind)

    @torch.no_grad()
    def _run_kmeans(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        if not self._init_open:
            return
        before = self.initialised.clone()
        super()._run_kmeans(x, mask, channel)
        if self.bug_compatible:
            assert self.embed_sum is not None
            just_now = self.initialised > before
            self.embed_sum.copy_(torch.where(just_now, self.codebook, self.embed_sum))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PeerCodebook:
        super()._apply(fn, recurse)
        self._decoded = fn(self.codebook.new_empty(0, dtype=self._decoded)).dtype
        return self

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.float().reshape(1) if name == "initialised" else tensor

    def _to_ours(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.reshape(()) if name == "initialised" else tensor


class VectorQuantizationBase(Peer):
    """One level: a codebook, between projections where its width is not that of the input."""

    codebook_key: ClassVar[str] = "_codebook.embed"
    settings: ClassVar[tuple[str, ...]] = ("commitment_weight",)
    _codebook_class: ClassVar[type[EuclideanCodebookBase]]
    project_in: nn.Module
    project_out: nn.Module
    channels_last: bool = False

    def __init__(
        self, dim: int, codebook_dim: int | None, commitment_weight: float, **codebook: Any
    ) -> None:
        super().__init__()
        width = dim if codebook_dim is None else codebook_dim
        self.project_in = nn.Identity() if width == dim else nn.Linear(dim, width)
        self.project_out = nn.Identity() if width == dim else nn.Linear(width, dim)
        self._codebook = self._codebook_class(dim=width, **codebook)
        self.epsilon = self._codebook.epsilon
        self.codebook_size = self._codebook.codebook_size
        self.commitment_weight = commitment_weight

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        arguments = EuclideanCodebookBase.arguments_of(theirs._codebook)
        width = arguments.pop("dim")
        projected = isinstance(theirs.project_in, nn.Linear)
        return {
            "dim": theirs.project_in.in_features if projected else width,
            "codebook_dim": width,
            "commitment_weight": theirs.commitment_weight,
            **arguments,
        }

    @property
    def codebook(self) -> Tensor:
        """The codes, (K, D)."""
        return self._codebook.codebook

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes x, (B, dim, N), or (B, N, dim) with ``channels_last``.

        Returns:
            (quantized like x, indices (B, N), loss (1,)). In training the gradient goes straight
            through and the loss is ``commitment_weight * mse(x, sg(q))``; else it is 0.
        """
        x = self._channels_last(x)
        out = self._codebook.step(self.project_in(x))
        loss = torch.zeros(1, device=x.device)
        if self.training:
            if not torch.compiler.is_compiling():  # which makes no leaves
                loss.requires_grad_()  # so that backward() may be called where x is a constant
            if self.commitment_weight > 0:
                loss = loss + out.loss * self.commitment_weight
            loss = self._regularized(loss, out)
        quantized = out.quantized if self.training else out.quantized.detach()
        return self._as_given(self.project_out(quantized)), out.indices, loss

    def encode(self, x: Tensor) -> Tensor:
        """Indices (B, N) of x, shaped as in ``forward``."""
        return self._codebook.encode(self.project_in(self._channels_last(x)))

    def decode(self, embed_ind: Tensor) -> Tensor:
        """What indices (B, N) stand for, shaped as x in ``forward``."""
        return self._as_given(self.project_out(self._codebook.decode(embed_ind)))

    def _regularized(self, loss: Tensor, out: VQOutput) -> Tensor:
        return loss

    def _channels_last(self, x: Tensor) -> Tensor:
        return x if self.channels_last else x.transpose(1, 2)

    def _as_given(self, x: Tensor) -> Tensor:
        return x if self.channels_last else x.transpose(1, 2)

    def _is_plain(self) -> bool:
        """Whether this level is its codebook and nothing else that could be seen."""
        hooks = [
            hook
            for part in self.modules()
            for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
        ]
        projected = not isinstance(self.project_in, nn.Identity)
        return self._codebook._init_done and not projected and not hooks


class ResidualVectorQuantizationBase(Peer):
    """Residual vector quantization (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1)."""

    codebook_key: ClassVar[str] = "_codebook.embed"
    layers: nn.ModuleList
    # Whether residuals are taken from the straight-through outputs, and so lose their gradient.
    # Else they are x less constants: the commitment of every level reaches x.
    _through_residuals: bool = False

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        first = VectorQuantizationBase.arguments_of(theirs.layers[0])
        return {"num_quantizers": len(theirs.layers), **first}

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes x, shaped as a level takes it, by the first n_q levels; by all if None or 0.

        Returns:
            (quantized like x, indices (n_q, B, N), losses (n_q, 1)).
        """
        levels = self._levels(n_q)
        if not self.training and all(level._is_plain() for level in levels):
            indices = self.encode(x, n_q)
            zeros = torch.zeros(len(levels), 1, device=x.device)
            return self.decode(indices).to(x.dtype), indices, zeros
        return self._level_by_level(x, levels)

    def _level_by_level(
        self, x: Tensor, levels: Sequence[VectorQuantizationBase]
    ) -> tuple[Tensor, Tensor, Tensor]:
        total: Any = 0.0
        left, codes, losses = x, [], []
        for level in levels:
            quantized, indices, loss = level(left)
            if not self._through_residuals:
                quantized = quantized.detach()
            left = left - quantized
            total = total + quantized
            codes.append(indices)
            losses.append(loss)
        if self.training and not self._through_residuals:
            total = total + (x - x.detach())  # a zero, which carries the gradient
        return total, torch.stack(codes), torch.stack(losses)

    @torch.no_grad()
    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        """Indices (n_q, B, N) of x, shaped as a level takes it."""
        levels = self._levels(n_q)
        if all(isinstance(level.project_in, nn.Identity) for level in levels):
            channel = -1 if levels[0].channels_last else 1
            return residual_codes(x, [level.codebook for level in levels], channel)
        codes = []
        for level in levels:
            codes.append(level.encode(x))
            x = x - level.decode(codes[-1])
        return torch.stack(codes)

    def decode(self, q_indices: Tensor) -> Tensor:
        """What indices (L', B, N), of the first L' levels, stand for."""
        total = torch.tensor(0.0, device=q_indices.device)
        for level, indices in zip(self._levels(None), q_indices, strict=False):
            total = total + level.decode(indices)
        return total

    def _levels(self, n_q: int | None) -> list[VectorQuantizationBase]:
        found: Any = list(self.layers)[: n_q or len(self.layers)]
        levels: list[VectorQuantizationBase] = found
        return levels
