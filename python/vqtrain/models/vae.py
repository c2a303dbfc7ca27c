"""VAE (Kingma and Welling 2014, arXiv 1312.6114): the VQ-VAE's trunk with Gaussian latents.

The continuous counterpart, for comparison: the same encoder and decoder, no codebook, no prior to
train. Its ELBO bounds log p(x | label) as reconstruction and code bits together do for codes.
Where a decoder makes do without them, latents collapse onto the prior; `active_units` counts the
rest.

    vqk train tokenizer digits --out runs/try --tokenizer.kind vae --tokenizer.steps 200
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vqtrain.models.dilated import make_decoder
from vqtrain.models.likelihood import LikelihoodConfig, NoLikelihoodError
from vqtrain.models.spatial import shrunk
from vqtrain.models.tokenizer import Signal, SignalModel
from vqtrain.models.trunk import Encoder, TrunkConfig

ACTIVE = 0.01  # variance over data of a posterior mean above which its unit is in use


@dataclass(frozen=True, kw_only=True)
class VAEConfig(LikelihoodConfig, TrunkConfig):
    """Size of the VAE.

    Args:
        downsamplings: strided convolutions; each halves every axis.
        latent_dim: latents per position of the grid.
        kl_weight: factor of the KL term in the loss; 1 maximises the ELBO, which is always what
            is reported.
    """

    downsamplings: int = 1
    latent_dim: int = 4
    kl_weight: float = 1.0


class VAEOutput(NamedTuple):
    """What a training step needs.

    Attributes:
        loss: 0-d, to minimise: nats per dimension, or a squared error and a KL term.
        nll: `(B,)` nats per item, -log p(x | z, label) for the z drawn; None without a likelihood.
        kl: `(B,)` nats per item, KL(q(z | x) || N(0, 1)).
        scalars: 0-d tensors worth a line in the log.
    """

    loss: Tensor
    nll: Tensor | None
    kl: Tensor
    scalars: dict[str, Tensor]


class VAE(SignalModel):
    """A signal to a grid of Gaussians and back; latents are `(B, latent_dim, *grid)`.

    Args:
        config: sizes.
        signal: what it is a model of; every length a multiple of `2 ** downsamplings`.

    Attributes:
        latent_shape: `(latent_dim, *grid)`.

    Raises:
        ValueError: if the signal cannot be halved that often.
    """

    config_type = VAEConfig

    def __init__(self, config: VAEConfig, signal: Signal) -> None:
        super().__init__(config, signal)
        self.latent_shape = (config.latent_dim, *shrunk(signal.size, config.downsamplings))
        self.likelihood = config.make_likelihood(signal.levels)
        self.encoder = Encoder(
            config, signal.ndim, signal.channels, 2 * config.latent_dim, config.downsamplings
        )
        self.decoder = make_decoder(
            config,
            signal.ndim,
            config.latent_dim,
            signal.channels * self.likelihood.num_parameters,
            signal.num_labels,
            config.downsamplings,
        )

    def forward(self, x: Tensor, labels: Tensor) -> VAEOutput:
        """Encodes, draws latents from torch's generator, decodes and measures."""
        mean, log_variance = self.posterior(x)
        cost, kl = self._measure(x, labels, mean, log_variance, torch.randn_like(mean))
        loss = (cost + self.config.kl_weight * kl).mean() / self.signal.dims
        nll = cost if self.likelihood.has_likelihood else None
        return VAEOutput(loss, nll, kl, {"kl": kl.mean()})

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), `(B, latent_dim, *grid)` each."""
        x = self.signal.scaled(x, next(self.encoder.parameters()).dtype)
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-30, 20)  # exp stays finite whatever a step has done

    def decode(self, latents: Tensor, labels: Tensor) -> Tensor:
        """Latents and `(B,)` labels to `(B, C * P, *size)` parameters of the likelihood."""
        return self.decoder(latents, labels)

    def elbo(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """`(B,)` nats per item, at most log p(x | label) in expectation.

        log p(x | z, label) - KL(q(z | x) || N(0, 1)) for one z of q(z | x) each.

        Args:
            x: `(B, C, *size)` integer levels.
            labels: `(B,)` int64.
            generator: CPU generator of the draws.

        Raises:
            NoLikelihoodError: if the decoder is trained on a squared error.
        """
        if not self.likelihood.has_likelihood:
            raise NoLikelihoodError("elbo must be asked of a likelihood, got a squared error")
        mean, log_variance = self.posterior(x)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        cost, kl = self._measure(x, labels, mean, log_variance, noise)
        return -(cost + kl)

    def cost(self, x: Tensor, labels: Tensor) -> Tensor:
        """`(B,)` nats per item, -ELBO (or a squared error plus the KL term), always the same z."""
        mean, log_variance = self.posterior(x)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)).to(mean)
        cost, kl = self._measure(x, labels, mean, log_variance, noise)
        return cost + kl

    def sample(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Parameters `(B, C * P, *size)` of latents drawn from N(0, 1) by a CPU generator."""
        latents = torch.randn((len(labels), *self.latent_shape), generator=generator)
        return self.decode(latents.to(next(self.decoder.parameters())), labels)

    def _measure(
        self, x: Tensor, labels: Tensor, mean: Tensor, log_variance: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`(B,)` costs of the reconstruction and `(B,)` nats of KL."""
        parameters = self.decode(mean + (log_variance / 2).exp() * noise, labels)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
        return self.likelihood.cost(parameters, x), kl.flatten(1).sum(1)


def active_units(means: Tensor) -> Tensor:
    """0-d int64, latents in use (Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519).

    A unit is active if its posterior mean has a variance above 0.01 over the data.

    Args:
        means: `(N, latent_dim, *grid)` of `posterior`, for N items.
    """
    return (means.double().var(0) > ACTIVE).sum()
