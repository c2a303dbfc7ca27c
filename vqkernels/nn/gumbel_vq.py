"""GumbelVQ: codes drawn by logits that are learnt, with the gradient of a softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqkernels import _checks, distributed, ops
from vqkernels._index_gradient import divergence_from_uniform, gumbel_quantize, largest_product
from vqkernels.nn._initial_codes import initial_codes
from vqkernels.nn._quantizer import Learnt
from vqkernels.nn._trained_by_gradient import TrainedByGradient
from vqkernels.outputs import VQOutput


class GumbelVQ(TrainedByGradient):
    """Straight-through Gumbel-softmax over codes (Jang et al. 2016, arXiv 1611.01144).

    With ``logits = x @ weight.T + bias``, and Gumbel noise g in training::

        indices = argmax_k(logits + g)             (a draw from softmax(logits))
        y = softmax_k((logits + g) / temperature)
        quantized = (one_hot(indices) - sg(y) + y) @ codebook     (bit-equal to the drawn code)
        loss = kl_weight * mean KL(softmax(logits) || 1/K)

    With ``hard=False`` training returns ``y @ codebook``. In eval mode, and in ``encode``, the
    index is the argmax of the logits, as float64 sums (i ascending, the bias last; ties: lowest
    index), and ``quantized`` is its code.

    No N x K array exists: logits, noise and probabilities are computed for a block of rows at a
    time, and again in the backward. The noise is a hash of (seed, ``draws``, row, code); torch's
    generators are neither read nor advanced, every training forward draws anew, every process for
    itself, and a checkpointed region draws the same again, if its backward comes before the next
    training forward.

    A vector with a NaN or an infinity gets index 0, NaN in ``quantized`` and no gradient. All
    tensors of the module stay float32.

    Args:
        num_embeddings: K, number of codes.
        embedding_dim: D, channels of x and length of a code.
        temperature: of y, above 0; ``set_temperature`` anneals it.
        kl_weight: factor of the divergence in nats, at least 0.
        hard: whether training returns codes and not mixtures.
        seed: seed of the hash, at least 0.
        channel_dim: dimension of x that holds the D channels.
        backend: of the argmax: "native", "triton", "reference", or None.

    Attributes:
        to_logits: ``nn.Linear(D, K)``; its parameters are used, the module is not called.
        codebook: (K, D) float32 Parameter, normal at the start.
        temperature: float32 0-d buffer.
        draws: int64 0-d buffer, counts training forwards.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """

    temperature: Tensor
    draws: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        temperature: float = 1.0,
        kl_weight: float = 5e-4,
        hard: bool = True,
        seed: int = 0,
        channel_dim: int = 1,
        backend: str | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim, channel_dim=channel_dim, backend=backend)
        _checks.at_least("kl_weight", kl_weight, 0.0)
        _checks.boolean("hard", hard)
        _checks.integer_at_least("seed", seed, 0)
        self.to_logits = nn.Linear(embedding_dim, num_embeddings, dtype=torch.float32)
        self.codebook = nn.Parameter(initial_codes("normal", num_embeddings, embedding_dim))
        self.register_buffer("temperature", torch.ones((), dtype=torch.float32))
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self.set_temperature(temperature)
        self.kl_weight = float(kl_weight)
        self.hard = hard
        self.seed = int(seed)

    @torch.no_grad()
    def set_temperature(self, temperature: float) -> None:
        """Sets the temperature of the next forwards, above 0. Compiled code stays as it is."""
        _checks.above("temperature", temperature, 0.0)
        self.temperature.fill_(temperature)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Draws codes in training, takes the likeliest ones in eval mode.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere and pass through.

        Returns:
            VQOutput(quantized, indices, loss, usage); ``usage.mse`` compares x with the codes at
            ``indices``.
        """
        return super().forward(x, mask)

    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel = self._check(x, mask)
        if self.training:
            ops.tick_(self.draws)
        logits = (self.to_logits.weight, self.to_logits.bias)
        out = gumbel_quantize(
            x,
            *logits,
            self.codebook,
            temperature=self.temperature,
            draws=self.draws if self.training else None,
            seed=distributed.seed_of_rank(self.seed, distributed.group_of(None)),
            hard=self.hard or not self.training,
            mask=mask,
            channel_dim=channel,
            backend=self.backend,
        )
        if self.kl_weight:
            divergence = divergence_from_uniform(x, *logits, mask, channel, self.num_embeddings)
            out = out._replace(loss=out.loss + self.kl_weight * divergence)
        return out, []

    def _choose(self, x: Tensor, channel: int) -> Tensor:
        logits = (self.to_logits.weight, self.to_logits.bias)
        return largest_product(x, *logits, channel, self.backend)

    def extra_repr(self) -> str:
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, kl_weight={self.kl_weight}, "
            f"hard={self.hard}, seed={self.seed}, channel_dim={self.channel_dim}, "
            f"backend={self.backend!r}"
        )
