"""The ledger of a VAE: its evidence lower bound, in bits per dimension.

    total = reconstruction + KL = [ -log2 p(x | z, y) + KL(q(z | x) || N(0, 1)) / log 2 ] / dims

for one z drawn from q(z | x) for each item (Kingma and Welling 2014, arXiv 1312.6114). Like the
total of codes it bounds -log2 p(x | y) from above, so the two may be compared.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vqtrain.data.dataset import Split
from vqtrain.metrics.estimate import estimate
from vqtrain.metrics.ledger import BATCH, BITS
from vqtrain.models import VAE, active_units


@dataclass(frozen=True)
class ElboLedger:
    """Bits per dimension of one split; None where there is no likelihood.

    Attributes:
        items: items measured.
        dims: dimensions of an item.
        total_bpd: -ELBO.
        recon_bpd: -log2 p(x | z, y).
        kl_bpd: KL(q(z | x) || N(0, 1)).
        total_standard_error: of the total, from its spread over items.
        active_units: latents whose posterior mean varies over the items.
        latent_units: all latents of an item.
    """

    items: int
    dims: int
    total_bpd: float | None
    recon_bpd: float | None
    kl_bpd: float
    total_standard_error: float | None
    active_units: int
    latent_units: int


@torch.no_grad()
def elbo_ledger(model: VAE, items: Split, seed: int = 0) -> ElboLedger:
    """Measures one split.

    Args:
        model: in eval mode.
        items: clean items, on the model's device.
        seed: decides the latents that are drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    means, kls, elbos = [], [], []
    for rows in torch.arange(len(items.labels)).split(BATCH):
        x, labels = items.x[rows], items.labels[rows]
        mean, log_variance = model.posterior(x)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
        means.append(mean)
        kls.append(kl.flatten(1).sum(1))
        if model.likelihood.has_likelihood:
            elbos.append(model.elbo(x, labels, generator))
    in_bits = BITS / model.signal.dims
    kl_bits = torch.cat(kls).double() * in_bits
    total = -torch.cat(elbos).double() * in_bits if elbos else None
    latents: Tensor = torch.cat(means)
    return ElboLedger(
        items=len(items.labels),
        dims=model.signal.dims,
        total_bpd=None if total is None else estimate(total).mean,
        recon_bpd=None if total is None else estimate(total - kl_bits).mean,
        kl_bpd=estimate(kl_bits).mean,
        total_standard_error=None if total is None else estimate(total).standard_error,
        active_units=int(active_units(latents)),
        latent_units=latents[0].numel(),
    )
