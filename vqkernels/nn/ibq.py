"""IBQ: index backpropagation, whose gradient reaches all codes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vqkernels import _checks
from vqkernels._index_gradient import index_quantize, largest_product, product_entropy
from vqkernels.nn._initial_codes import initial_codes
from vqkernels.nn._quantizer import Learnt
from vqkernels.nn._trained_by_gradient import TrainedByGradient
from vqkernels.options import Entropy
from vqkernels.outputs import VQOutput


class IBQ(TrainedByGradient):
    """Index backpropagation quantization (Shi et al. 2024, arXiv 2412.02692).

    The code of a vector is the one of the largest dot product, and the gradient is that of a
    one-hot vector with the softmax over all codes behind it::

        indices = argmax_k x . c_k                 (float64 sums, i ascending; ties: lowest index)
        p = softmax_k(x . c_k)
        quantized = (one_hot(indices) - sg(p) + p) @ codebook     (bit-equal to the chosen code)
        loss = soft_weight * mse(x, quantized) + commitment_weight * mse(x, sg(q))
               + codebook_weight * mse(sg(x), q)

    q is the chosen code without that gradient: the first term reaches all codes, the last one the
    chosen code. Neither one_hot nor p exists: the forward is the search alone, and the backward
    computes p again for a block of rows at a time. Its products are float32, in whatever precision
    torch multiplies float32 matrices.

    A vector with a NaN or an infinity gets index 0, NaN in ``quantized`` and no gradient through
    p; a code with one is never chosen and has p = 0. Codes stay float32.

    Args:
        num_embeddings: K, number of codes.
        embedding_dim: D, length of a code.
        soft_weight: factor of the loss term that reaches all codes, at least 0.
        commitment_weight: factor of ``mse(x, sg(q))``, at least 0.
        codebook_weight: factor of ``mse(sg(x), q)``, at least 0; beta of the paper.
        entropy: ``Entropy(weight, temperature, diversity)`` adds the entropy loss of
            ``softmax_k(x . c_k / temperature)`` in training; the paper has 0.05 and 0.01.
        init: "normal", "uniform" in [-1/K, 1/K], or a (K, D) tensor.
        channel_dim: dimension of x that holds the D channels.
        backend: of the search: "native", "triton", "reference", or None.

    Attributes:
        codebook: (K, D) float32 Parameter.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        soft_weight: float = 1.0,
        commitment_weight: float = 1.0,
        codebook_weight: float = 0.25,
        entropy: Entropy | None = None,
        init: str | Tensor = "normal",
        channel_dim: int = 1,
        backend: str | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, channel_dim=channel_dim, backend=backend)
        weights = {
            "soft_weight": soft_weight,
            "commitment_weight": commitment_weight,
            "codebook_weight": codebook_weight,
        }
        for name, value in weights.items():
            _checks.at_least(name, value, 0.0)
        if not (entropy is None or isinstance(entropy, Entropy)):
            raise TypeError(f"entropy must be Entropy(...) or None, got {entropy!r}")
        if isinstance(init, str):
            _checks.one_of("init", init, ("normal", "uniform"))
        self.codebook = nn.Parameter(initial_codes(init, num_embeddings, embedding_dim))
        self.weights = {name: float(value) for name, value in weights.items()}
        self.entropy = entropy

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Quantizes x.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage).
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel = self._check(x, mask)
        options: dict[str, Any] = {"channel_dim": channel, "backend": self.backend, **self.weights}
        out = index_quantize(x, self.codebook, mask=mask, **options)
        if self.training and self.entropy is not None:
            more = product_entropy(self.entropy, x, self.codebook, mask, channel)
            out = out._replace(loss=out.loss + more.to(out.loss.dtype))
        return out, []

    def _choose(self, x: Tensor, channel: int) -> Tensor:
        return largest_product(x, self.codebook, None, channel, self.backend)

    def extra_repr(self) -> str:
        weights = ", ".join(f"{name}={value}" for name, value in self.weights.items())
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, {weights}, entropy={self.entropy}, "
            f"channel_dim={self.channel_dim}, backend={self.backend!r}"
        )
