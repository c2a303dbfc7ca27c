"""Masked prior: MaskGIT (Chang et al. 2022, arXiv 2202.04200), trained as BEiT is on masked codes.

A transformer that sees in all directions predicts every masked code from the others. Sampling
starts from nothing and fills all positions in every pass, but keeps only the codes it trusts most;
after a handful of passes nothing is masked. The codes of one pass are drawn independently of each
other, so this is no exact sampler of any distribution that could be written down, and there is no
exact likelihood: `nll` refuses, and training is judged by the code length of masked codes.

Run `python -m vqtrain.train_prior RUN --prior.kind masked` to train one on extracted codes.
"""

import math
from dataclasses import dataclass
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.models.tokenizer import Codes, NoLikelihoodError
from vqtrain.priors.prior import CodeSpace, Known, Prior
from vqtrain.priors.sampling import Sampler, draw, guided
from vqtrain.priors.transformer import Transformer, TransformerConfig

VALIDATION_MASKS = 16


@dataclass(frozen=True, kw_only=True)
class MaskedConfig(TransformerConfig):
    """Size of the prior and its way of sampling; see `TransformerConfig` for the transformer.

    Args:
        label_smoothing: share of the target that is spread over all codes in training (the paper:
            0.1).
        passes: forwards of the transformer in sampling (the paper: 8 to 12).
        choice_temperature: scale of the Gumbel noise on confidences in the first pass; it falls to
            0 in the last one (the paper: 4.5). Without noise the samples lack variety.
    """

    label_smoothing: float = 0.0
    passes: int = 12
    choice_temperature: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, got {self.passes}")
        if not self.choice_temperature >= 0:
            raise ValueError(
                f"choice_temperature must be at least 0, got {self.choice_temperature}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")


class MaskedPrior(Prior):
    """p(z_t | unmasked codes, label, upper) of every masked position t.

    Args:
        config: sizes.
        space: the grid it models, and what it is told.
    """

    exact_likelihood = False
    bidirectional = True
    config_type = MaskedConfig

    def __init__(self, config: MaskedConfig, space: CodeSpace) -> None:
        super().__init__(config, space)
        self.mask = space.num_embeddings
        self.network = Transformer(config, space, causal=False)

    def forward(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """Logits `(B, K, *grid)` of every position, given all codes that are not K, the mask."""
        self.space.check(codes, upper)
        logits = self.network(codes.flatten(1).long(), self.network.condition(labels, upper))
        return logits.transpose(1, 2).unflatten(2, self.space.grid)

    def loss(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """0-d, mean cross-entropy in nats of codes masked at random, equation 1 of the paper.

        How many are masked is drawn per item: the cosine of a uniform angle, as in sampling.
        """
        shape, positions = (len(codes), self.space.positions), self.space.positions
        angle = torch.rand(shape[0], 1, device=codes.device) * (math.pi / 2)
        count = (angle.cos() * positions).ceil().clamp(1, positions)
        order = torch.rand(shape, device=codes.device).argsort(1).argsort(1)
        masked = (order < count).unflatten(1, self.space.grid)
        losses = self._losses(
            codes, masked, self.drop_labels(labels), upper, self.config.label_smoothing
        )
        return losses.sum() / masked.sum()

    def validation_loss(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """`(B,)` mean nats per masked code, under fixed masks that follow the schedule.

        Every item sees the same masks, so the values of two models or two steps differ by the
        models alone. It is a measure for choosing a step, not a likelihood.
        """
        generator = torch.Generator().manual_seed(0)
        total = torch.zeros(len(codes), device=codes.device)
        for step in range(VALIDATION_MASKS):
            count = math.ceil(_share_masked(step + 0.5, VALIDATION_MASKS) * self.space.positions)
            order = torch.randperm(self.space.positions, generator=generator)
            masked = (order < count).view(1, *self.space.grid).to(codes.device)
            losses = self._losses(codes, masked.expand_as(codes), labels, upper)
            total = total + losses.flatten(1).sum(1) / count
        return total / VALIDATION_MASKS

    def nll(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> NoReturn:
        """Raises `NoLikelihoodError`."""
        raise NoLikelihoodError(
            "MaskedPrior has no exact likelihood: use validation_loss, or an autoregressive prior"
        )

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        generator: torch.Generator,
        sampler: Sampler = Sampler(),  # noqa: B008 (frozen)
        upper: Codes = (),
        known: Known | None = None,
        cached: bool = True,
    ) -> Tensor:
        """Draws all codes in `config.passes` passes, section 3.2 of the paper.

        Arguments and errors are those of `Prior.generate`, except that all known codes are told to
        every position, wherever they are, and that there is nothing to cache. How many codes are
        still masked after a pass is a Python integer, so the loop never waits for the device.
        """
        self._check_generate(labels, sampler, upper, known)
        shape = (self.config.passes, 2, len(labels), self.space.positions)
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64).to(labels.device)
        tokens = torch.full(shape[2:], self.mask, dtype=torch.int64, device=labels.device)
        unknown = self.space.positions
        if known is not None:
            codes, kept = (tensor.flatten(-len(self.space.grid)) for tensor in known)
            tokens = torch.where(kept.to(tokens.device), codes, tokens)
            unknown -= int(kept.sum())
        left = unknown
        for step in range(self.config.passes):
            masked = tokens == self.mask
            logits = self._sampling_logits(tokens, labels, upper, sampler)
            chosen, noise = uniforms[step]
            drawn = draw(logits.flatten(0, 1), chosen.flatten(), sampler).view_as(tokens)
            tokens = torch.where(masked, drawn, tokens)
            # At least one code is kept in every pass, so a small grid may need fewer of them.
            left = min(int(_share_masked(step + 1, self.config.passes) * unknown), left - 1)
            if left <= 0:
                break
            log_p = logits.double().log_softmax(-1).gather(2, drawn[..., None])[..., 0]
            scale = self.config.choice_temperature * (1 - (step + 1) / self.config.passes)
            confidence = log_p - scale * torch.log(-torch.log(noise))  # plus Gumbel noise
            confidence = confidence.masked_fill(~masked, math.inf)
            least = confidence.argsort(1)[:, :left]
            tokens = tokens.scatter(1, least, self.mask)
        return tokens.unflatten(1, self.space.grid)

    def _sampling_logits(
        self, tokens: Tensor, labels: Tensor, upper: Codes, sampler: Sampler
    ) -> Tensor:
        """`(B, T, K)`, guided if the sampler says so."""
        logits = self.network(tokens, self.network.condition(labels, upper))
        if sampler.guidance == 1:
            return logits
        nothing = torch.full_like(labels, self.space.null_label)
        null = self.network(tokens, self.network.condition(nothing, upper))
        return guided(logits, null, sampler.guidance)

    def _losses(
        self,
        codes: Tensor,
        masked: Tensor,
        labels: Tensor,
        upper: Codes,
        label_smoothing: float = 0.0,
    ) -> Tensor:
        """`(B, *grid)` nats of the masked codes, 0 elsewhere."""
        logits = self(codes.masked_fill(masked, self.mask), labels, upper)
        losses = F.cross_entropy(
            logits, codes.long(), reduction="none", label_smoothing=label_smoothing
        )
        return losses * masked


def _share_masked(step: float, passes: int) -> float:
    """Of the codes that are drawn, the share still masked after `step` passes: cosine schedule."""
    return math.cos(math.pi / 2 * step / passes)
