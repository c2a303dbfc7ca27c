"""SimVQ: frozen codes seen through a map that is learnt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqkernels import _checks, functional
from vqkernels.nn._initial_codes import initial_codes
from vqkernels.nn._quantizer import Learnt
from vqkernels.nn._trained_by_gradient import TrainedByGradient
from vqkernels.outputs import VQOutput


class SimVQ(TrainedByGradient):
    """Quantizes with ``codebook = transform(frozen codes)`` (Zhu et al. 2024, arXiv 2411.02038).

    The frozen codes are drawn once and never move; the optimizer trains the transform, a matrix by
    default. A step that moves one code moves all of them, so none is left behind. Values, losses
    and gradients are those of ``vqkernels.vector_quantize`` with that codebook::

        loss = commitment_weight * mse(x, sg(q)) + codebook_weight * mse(sg(x), q)

    of which the second term reaches the transform. Indices are the exact nearest rows of the
    transformed codebook, which is computed once per call, in the dtype of the transform and
    without autocast. All tensors of the module, the transform's included, stay float32 through
    ``.half()`` and ``.to(dtype)``.

    Args:
        num_embeddings: K, number of codes.
        embedding_dim: D, channels of x and of the transformed codes.
        transform: module from (K, D') to (K, D); None for ``nn.Linear(D', D, bias=False)``.
        frozen: (K, D') floating tensor of finite codes; None draws them, D' = D, from a normal
            distribution of variance 1/D with torch's generator. Ranks of a process group must
            have the same ones: DDP sees to it, ``fully_shard`` does not. There seed the generator
            alike on all ranks, or pass them.
        commitment_weight: factor of ``mse(x, sg(q))``, at least 0.
        codebook_weight: factor of ``mse(sg(x), q)``, at least 0.
        estimator: "straight_through" or "rotation".
        channel_dim: dimension of x that holds the D channels.
        backend: "native", "triton", "reference", or None for the first available one.

    Attributes:
        frozen: (K, D') float32 buffer.
        transform: the module.
        codebook: (K, D), the transformed codes, differentiable; computed when read.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """

    frozen: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        transform: nn.Module | None = None,
        frozen: Tensor | None = None,
        commitment_weight: float = 0.25,
        codebook_weight: float = 1.0,
        estimator: str = "straight_through",
        channel_dim: int = 1,
        backend: str | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, channel_dim=channel_dim, backend=backend)
        _checks.at_least("commitment_weight", commitment_weight, 0.0)
        _checks.at_least("codebook_weight", codebook_weight, 0.0)
        _checks.one_of("estimator", estimator, _checks.ESTIMATORS)
        if not (transform is None or isinstance(transform, nn.Module)):
            raise TypeError(f"transform must be a module or None, got {transform!r}")
        if frozen is None:
            frozen = initial_codes("normal", num_embeddings, embedding_dim) * embedding_dim**-0.5
        else:
            _checks.codebook(frozen, "frozen")
            _checks.shaped("frozen", frozen, (num_embeddings, frozen.shape[1]))
            if not frozen.is_meta and not frozen.isfinite().all():
                raise ValueError("frozen must be finite, got a NaN or an infinity")
        self.register_buffer("frozen", frozen.detach().to(torch.float32, copy=True))
        if transform is None:
            transform = nn.Linear(frozen.shape[1], embedding_dim, bias=False, dtype=torch.float32)
        self.transform = transform
        self.commitment_weight = float(commitment_weight)
        self.codebook_weight = float(codebook_weight)
        self.estimator = estimator

    @property
    def codebook(self) -> Tensor:  # type: ignore[override]
        """(K, D): the transformed codes."""
        parameter = next(self.transform.parameters(), self.frozen)
        with torch.autocast(self.frozen.device.type, enabled=False):
            codes: Tensor = self.transform(self.frozen.to(parameter.dtype))
        _checks.shaped("transform's result", codes, (self.num_embeddings, self.embedding_dim))
        return codes

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes x.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage), as ``vqkernels.vector_quantize``.
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel = self._check(x, mask)
        out, _ = functional.quantize_with_sums(
            x,
            self.codebook,
            None,
            commitment_weight=self.commitment_weight,
            codebook_weight=self.codebook_weight,
            estimator=self.estimator,
            metric="l2",
            mask=mask,
            channel_dim=channel,
            backend=self.backend,
            statistics=False,
        )
        return out, []

    def _choose(self, x: Tensor, channel: int) -> Tensor:
        found = functional.search(x, self.codebook, None, "l2", channel, self.backend)
        return found.indices

    def extra_repr(self) -> str:
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, "
            f"commitment_weight={self.commitment_weight}, "
            f"codebook_weight={self.codebook_weight}, estimator={self.estimator!r}, "
            f"channel_dim={self.channel_dim}, backend={self.backend!r}"
        )
