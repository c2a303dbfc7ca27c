"""The continuous counterpart: its bound, its latents and the count of those in use."""

import json

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from vqtrain.models import VAE, VQVAE, NoLikelihoodError, Signal, VAEConfig, VQVAEConfig
from vqtrain.models.vae import active_units


def make(size: tuple[int, ...] = (8, 8), **config: object) -> VAE:
    torch.manual_seed(0)
    small = {"hidden": 12, "residual_hidden": 6, "latent_dim": 2, **config}
    return VAE(VAEConfig(**small), Signal(size, 1, levels=9, num_labels=3))  # type: ignore[arg-type]


def batch(count: int = 8, size: tuple[int, ...] = (8, 8)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(9, (count, 1, *size), generator=generator, dtype=torch.uint8)
    return x, torch.arange(count) % 3


@pytest.mark.parametrize("size", [(16,), (8, 12), (4, 4, 8)])
def test_shapes_in_one_two_and_three_dimensions(size: tuple[int, ...]) -> None:
    model = make(size).eval()
    x, labels = batch(4, size)
    halved = tuple(length // 2 for length in size)
    assert model.latent_shape == (2, *halved)
    assert [tuple(t.shape) for t in model.posterior(x)] == [(4, 2, *halved)] * 2
    assert model.sample(labels, torch.Generator()).shape == (4, 9, *size)
    output = model(x, labels)
    assert output.nll.shape == output.kl.shape == (4,)


def test_the_elbo_is_reconstruction_less_the_divergence_from_the_prior() -> None:
    model = make().eval()
    x, labels = batch()
    mean, log_variance = model.posterior(x)
    posterior = Normal(mean, (log_variance / 2).exp())
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(5))
    parameters = model.decode(mean + posterior.stddev * noise, labels)
    recon = model.likelihood.log_prob(parameters, x).flatten(1).sum(1)
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).flatten(1).sum(1)
    elbo = model.elbo(x, labels, torch.Generator().manual_seed(5))
    torch.testing.assert_close(elbo, recon - kl)
    assert torch.equal(elbo, model.elbo(x, labels, torch.Generator().manual_seed(5)))
    assert not torch.equal(elbo, model.elbo(x, labels, torch.Generator().manual_seed(6)))


def test_the_elbo_bounds_the_log_likelihood_from_below() -> None:
    # log p(x) by importance sampling from the posterior with 4000 draws (Burda et al. 2016).
    model = make((2, 2), latent_dim=1).eval()
    x, labels = torch.tensor([[[[0, 3], [8, 5]]]]), torch.zeros(1, dtype=torch.long)
    mean, log_variance = model.posterior(x)
    posterior = Normal(mean, (log_variance / 2).exp())
    torch.manual_seed(3)
    z = posterior.sample((4000,))[:, 0]
    many = x.expand(4000, -1, -1, -1)
    log_p = model.likelihood.log_prob(model.decode(z, labels.expand(4000)), many)
    log_joint = log_p.flatten(1).sum(1) + Normal(0.0, 1.0).log_prob(z).flatten(1).sum(1)
    log_x = (log_joint - posterior.log_prob(z).flatten(1).sum(1)).logsumexp(0) - torch.tensor(
        4000.0
    ).log()
    elbo = torch.stack(
        [model.elbo(x, labels, torch.Generator().manual_seed(i)) for i in range(300)]
    ).mean()
    assert elbo < log_x + 1e-3


def test_the_loss_is_the_negative_elbo_and_the_weight_acts_on_the_divergence_alone() -> None:
    x, labels = batch()
    plain, heavy = make(), make(kl_weight=3.0)
    outputs = []
    for model in (plain, heavy):
        torch.manual_seed(7)  # the forward draws from torch's generator
        outputs.append(model(x, labels))
    one, three = outputs
    assert torch.equal(one.nll, three.nll)
    assert torch.equal(one.kl, three.kl)
    torch.testing.assert_close(one.loss, (one.nll + one.kl).mean() / 64)
    torch.testing.assert_close(three.loss, (one.nll + 3 * one.kl).mean() / 64)


def test_the_value_that_a_step_is_chosen_by_repeats_itself_and_is_an_elbo() -> None:
    model = make().eval()
    x, labels = batch()
    cost = model.cost(x, labels)
    torch.manual_seed(99)
    assert torch.equal(model.cost(x, labels), cost)
    torch.testing.assert_close(cost, -model.elbo(x, labels, torch.Generator().manual_seed(0)))


def test_training_raises_the_elbo_and_keeps_latents_in_use() -> None:
    model = make()
    blocks, labels = batch(16, (2, 2))
    x = (blocks // 5 * 8).repeat_interleave(4, -1).repeat_interleave(4, -2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    first = model.cost(x, labels).mean()
    for _ in range(60):
        optimizer.zero_grad()
        model(x, labels).loss.backward()
        optimizer.step()
    assert model.cost(x, labels).mean() < 0.7 * first
    assert active_units(model.posterior(x)[0]) > 0


def test_units_are_active_where_the_posterior_mean_varies_over_the_data() -> None:
    means = torch.zeros(1000, 2, 3)
    generator = torch.Generator().manual_seed(0)
    means[:, 0, 0] = 5.0  # far from the prior, and constant: says nothing
    means[:, 0, 1] = torch.randn(1000, generator=generator) * 0.05  # variance 0.0025
    means[:, 0, 2] = torch.randn(1000, generator=generator) * 0.2  # variance 0.04
    means[:, 1, 1] = torch.randn(1000, generator=generator)
    assert active_units(means).item() == 2


def test_its_trunk_is_that_of_the_vqvae() -> None:
    signal = Signal((8, 8), 1, levels=9, num_labels=3)
    torch.manual_seed(0)
    vae = VAE(VAEConfig(latent_dim=4), signal)
    vqvae = VQVAE(VQVAEConfig(embedding_dim=4), signal)

    def layers(model: nn.Module) -> list[tuple[str, torch.Size]]:
        return [(n, p.shape) for n, p in model.state_dict().items() if n.startswith("decoder.")]

    assert layers(vae) == layers(vqvae)
    # The encoder differs in its last layer alone, which gives a mean and a variance.
    different = [
        name
        for name, p in vae.encoder.state_dict().items()
        if p.shape != vqvae.encoder.state_dict()[name].shape
    ]
    assert {name.rsplit(".", 1)[0] for name in different} == {"layers.6"}


def test_a_description_survives_json_and_rebuilds_it() -> None:
    model = make(likelihood="gaussian", scale="global").eval()
    twin = VAE.from_description(json.loads(json.dumps(model.description()))).eval()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.cost(*batch()), model.cost(*batch()))


def test_a_squared_error_has_no_elbo() -> None:
    model = make(likelihood="mse")
    x, labels = batch()
    assert model(x, labels).nll is None
    with pytest.raises(NoLikelihoodError, match="elbo must be asked of a likelihood"):
        model.elbo(x, labels, torch.Generator())
