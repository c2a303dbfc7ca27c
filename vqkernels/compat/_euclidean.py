"""The EMA codebook that encodec and audiocraft share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels.compat._codebook import PeerCodebook
from vqkernels.compat._peer import Peer
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
    settings: ClassVar[tuple[str, ...]] = ("decay", "epsilon")
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
        kmeans_init: bool = False,
        kmeans_iters: int = 10,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        threshold_ema_dead_code: float = 2,
        *,
        bug_compatible: bool = True,
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
        self.codebook_size = codebook_size
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

    @property
    def decay(self) -> float:
        """Of the moving averages; may be set between two steps."""
        return self._averages.decay

    @decay.setter
    def decay(self, decay: float) -> None:
        self.update = replace(self._averages, decay=decay)

    @property
    def epsilon(self) -> float:
        """Smoothing of the cluster sizes; may be set between two steps."""
        return self._averages.epsilon

    @epsilon.setter
    def epsilon(self, epsilon: float) -> None:
        self.update = replace(self._averages, epsilon=epsilon)

    @property
    def _averages(self) -> EMA:
        assert isinstance(self.update, EMA)
        return self.update

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Codes of x, (*positions, D), and their indices. No gradient goes to x."""
        out = self.step(x)
        return out.quantized.detach(), out.indices

    def step(self, x: Tensor) -> VQOutput:
        """``forward`` with the gradient and the mean squared error: its ``loss``."""
        if not self.training and not self._init_done:
            self.init_codebook(x)
        # Under autocast x is shorter than the codes, and the codes are what theirs returns.
        return PeerCodebook.forward(self, x.to(torch.promote_types(x.dtype, self.given_dtype)))

    def decode(self, indices: Tensor) -> Tensor:
        """Codes of indices (*positions): (*positions, D), in the dtype given to the model."""
        return super().decode(indices).to(self.given_dtype)

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

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.float().reshape(1) if name == "initialised" else tensor

    def _to_ours(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.reshape(()) if name == "initialised" else tensor
