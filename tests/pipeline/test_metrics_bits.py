"""Bits against hand computations, with models whose probabilities are known by construction."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqtrain.data.dataset import Split
from vqtrain.metrics.coders import unigram, zstd_bits
from vqtrain.metrics.conditioning import conditioning
from vqtrain.metrics.elbo import elbo_ledger
from vqtrain.metrics.ledger import ledger
from vqtrain.metrics.usage import code_usage
from vqtrain.models import VAE, Categorical, VAEConfig
from vqtrain.models.tokenizer import Codes, Signal, Tokenizer
from vqtrain.priors.prior import CodeSpace, Prior

LEVELS, CLASSES = 5, 3


class TwoLevels(Tokenizer):
    """2x2 signals to 1 code of 2 and 2x2 codes of 4; every entry costs its own value in nats."""

    def __init__(self, likelihood: bool = True) -> None:
        nn.Module.__init__(self)
        self.signal = Signal((2, 2), channels=1, levels=LEVELS, num_labels=CLASSES)
        self.codebook_sizes, self.code_grids = (2, 4), ((1,), (2, 2))
        self.likelihood = Categorical(LEVELS)
        self.likelihood.has_likelihood = likelihood  # type: ignore[misc]

    def encode(self, x: Tensor) -> Codes:
        return x.flatten(1)[:, :1].long() % 2, x[:, 0].long() % 4

    def nll(self, x: Tensor, labels: Tensor, codes: Codes | None = None) -> Tensor:
        return x.flatten(1).float().sum(1)


class Table(Prior):
    """Independent codes: class y gives code y the probability `sharp`, others share the rest."""

    def __init__(self, space: CodeSpace, sharp: float) -> None:
        super().__init__(None, space)
        k = space.num_embeddings
        table = torch.full((CLASSES, k), (1 - sharp) / (k - 1))
        table[torch.arange(CLASSES), torch.arange(CLASSES) % k] = sharp
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("log_p", table.log())

    def forward(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        self.space.check(codes, upper)
        logits = self.log_p[labels].clone()  # type: ignore[index]
        if self.training:
            logits = (self.dropout(logits)).log_softmax(1)
        return logits[(...,) + (None,) * (codes.ndim - 1)].expand(-1, -1, *codes.shape[1:])


class Masked(Table):
    """A prior without a likelihood, whose masked codes cost as many nats as the label says."""

    exact_likelihood = False

    def nll(self, *_: Any) -> Tensor:
        raise AssertionError("nobody may ask a masked prior for a likelihood")

    def validation_loss(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        return labels.double()


def items(n: int = 9) -> Split:
    x = torch.randint(LEVELS, (n, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    return Split(x.to(torch.uint8), torch.arange(n) % CLASSES, torch.arange(n))


def priors(sharp: float = 0.7) -> list[Prior]:
    top = Table(CodeSpace(2, (1,), CLASSES), sharp)
    return [top.eval(), Table(CodeSpace(4, (2, 2), CLASSES, ((2, (1,)),)), sharp).eval()]


def measured(tokenizer: Tokenizer, models: list[Prior], n: int = 9) -> Any:
    split = items(n)
    codes = tokenizer.encode(split.x)
    frequencies = [unigram(c, k) for c, k in zip(codes, tokenizer.codebook_sizes, strict=True)]
    return ledger(tokenizer, models, split, codes, frequencies)


def test_the_ledger_adds_up_over_levels_and_equals_a_hand_computation() -> None:
    got, split = measured(TwoLevels(), priors()), items()
    top, bottom = TwoLevels().encode(split.x)
    in_bits = 1 / math.log(2) / 4
    recon = split.x.flatten(1).double().sum(1) * in_bits
    costs = []
    for codes, k in ((top, 2), (bottom.flatten(1), 4)):
        right = codes == (split.labels % k)[:, None]
        p = torch.where(right, 0.7, 0.3 / (k - 1)).double()
        costs.append(-p.log().sum(1) * in_bits)
    total = recon + costs[0] + costs[1]
    assert (got.items, got.dims) == (9, 4)
    assert got.recon_bpd == pytest.approx(recon.mean().item(), rel=1e-6)
    assert got.prior_bpd == pytest.approx((costs[0] + costs[1]).mean().item(), rel=1e-6)
    assert got.total_bpd == pytest.approx(total.mean().item(), rel=1e-6)
    assert got.total_standard_error == pytest.approx(total.std().item() / 3, rel=1e-5)
    for level, cost, share in zip(got.levels, costs, (1 / 4, 1.0), strict=True):
        assert level.prior_bpd == pytest.approx(cost.mean().item(), rel=1e-6)
        assert level.prior_bits_per_code == pytest.approx(cost.mean().item() / share, rel=1e-6)
        assert level.uniform_bpd == math.log2(level.num_embeddings) * share
    assert got.uniform_bpd == pytest.approx((1 * 1 + 4 * 2) / 4)
    assert got.unigram_bpd == pytest.approx(sum(level.unigram_bpd for level in got.levels))


def test_a_batch_does_not_change_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measured(TwoLevels(), priors())
    monkeypatch.setattr("vqtrain.metrics.ledger.BATCH", 2)
    parts = measured(TwoLevels(), priors())
    assert parts.total_bpd == pytest.approx(whole.total_bpd, rel=1e-6)
    assert parts.total_standard_error == pytest.approx(whole.total_standard_error, rel=1e-5)


def test_what_has_no_likelihood_is_absent_and_the_codes_still_cost_bits() -> None:
    got = measured(TwoLevels(likelihood=False), priors())
    assert got.recon_bpd is None
    assert got.total_bpd is None
    assert got.total_standard_error is None
    assert got.prior_bpd == pytest.approx(measured(TwoLevels(), priors()).prior_bpd)


def test_a_masked_prior_has_masked_bits_and_no_code_length() -> None:
    top, bottom = priors()
    got = measured(TwoLevels(), [top, Masked(bottom.space, 0.7).eval()])
    assert got.prior_bpd is None
    assert got.total_bpd is None
    assert got.levels[0].prior_bpd is not None
    assert got.levels[0].masked_bits_per_code is None
    assert got.levels[1].prior_bpd is None
    assert got.levels[1].masked_bits_per_code == pytest.approx(1 / math.log(2))


def test_without_priors_reconstruction_and_baselines_remain() -> None:
    got = measured(TwoLevels(), [])
    assert got.prior_bpd is None
    assert got.recon_bpd is not None
    assert got.uniform_bpd == pytest.approx(9 / 4)


def test_parts_that_are_not_one_per_level_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be 2, one per level, got 2, 2 and 1"):
        measured(TwoLevels(), priors()[:1])


def test_unigram_frequencies_sum_to_one_and_none_is_zero() -> None:
    p = unigram(torch.zeros(1, 2, 2, dtype=torch.uint8), 4)
    assert p.tolist() == pytest.approx([5 / 8, 1 / 8, 1 / 8, 1 / 8])


def test_zstd_sees_repetition_and_cannot_pack_noise_below_its_entropy() -> None:
    pytest.importorskip("zstandard")
    noise = torch.randint(256, (20, 64), generator=torch.Generator().manual_seed(0))
    assert 8 <= zstd_bits(noise, 256) < 8.2  # type: ignore[operator]
    assert zstd_bits(noise[:1].repeat(20, 1), 256) < 1  # type: ignore[operator]
    # The high byte of 10 bits holds 2: 8 + 2 bits, were it coded without loss.
    wide = torch.randint(1024, (200, 64), generator=torch.Generator().manual_seed(0))
    assert 10 <= zstd_bits(wide, 1024) < 10.6  # type: ignore[operator]


def test_usage_of_equal_codes_is_full_and_of_one_code_is_one() -> None:
    equal = code_usage(torch.arange(8).view(2, 2, 2) % 4, 4)
    assert (equal.used, equal.perplexity) == (1.0, pytest.approx(4))
    assert equal.ceiling == pytest.approx(1 - (3 / 4) ** 8)
    single = code_usage(torch.full((2, 2, 2), 3), 4)
    assert (single.used, single.perplexity) == (0.25, pytest.approx(1))
    assert single.counts.tolist() == [0, 0, 0, 8]


def test_the_conditioning_gap_is_what_the_table_says() -> None:
    space, labels = CodeSpace(4, (1,), CLASSES), torch.arange(300) % CLASSES
    codes = (labels[:, None],)  # the likeliest code of each class
    got = conditioning([Table(space, 0.7).eval()], codes, labels, CLASSES)
    assert got.gap_bits == pytest.approx(math.log2(0.7 / ((0.7 + 0.1 + 0.1) / 3)), abs=1e-5)
    assert got.bayes_accuracy == 1
    assert got.gap_bound_bits == math.log2(3)
    deaf = conditioning([Table(space, 0.25).eval()], codes, labels, CLASSES)
    assert deaf.gap_bits == pytest.approx(0, abs=1e-6)
    assert deaf.bayes_accuracy == pytest.approx(1 / 3)


def test_a_gap_above_its_bound_is_an_error() -> None:
    torch.manual_seed(0)
    space, labels = CodeSpace(4, (2, 2), CLASSES), torch.arange(90) % CLASSES
    codes = (labels[:, None, None].expand(-1, 2, 2),)
    with pytest.raises(ValueError, match="gap must be at most log2"):
        conditioning([Table(space, 0.999).train()], codes, labels, CLASSES)


def small_vae(**settings: Any) -> VAE:
    torch.manual_seed(0)
    config = VAEConfig(hidden=4, residual_hidden=4, latent_dim=2, downsamplings=1, **settings)
    return VAE(config, Signal((2, 2), channels=1, levels=LEVELS, num_labels=CLASSES)).eval()


@torch.no_grad()
def test_the_bound_of_a_vae_is_reconstruction_and_kl() -> None:
    model, split = small_vae(), items()
    got = elbo_ledger(model, split)
    mean, log_variance = model.posterior(split.x)
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    in_bits = 1 / math.log(2) / 4
    assert got.kl_bpd == pytest.approx(kl.flatten(1).sum(1).mean().item() * in_bits, rel=1e-5)
    elbo = model.elbo(split.x, split.labels, torch.Generator().manual_seed(0))
    assert got.total_bpd == pytest.approx(-elbo.mean().item() * in_bits, rel=1e-5)
    assert got.total_bpd == pytest.approx((got.recon_bpd or 0) + got.kl_bpd, rel=1e-6)
    assert (got.items, got.dims, got.latent_units) == (9, 4, 2)


@torch.no_grad()
def test_a_collapsed_vae_has_no_active_units_and_no_kl() -> None:
    model = small_vae()
    for parameter in model.encoder.parameters():
        parameter.zero_()
    got = elbo_ledger(model, items())
    assert (got.active_units, got.kl_bpd) == (0, 0)
    assert got.recon_bpd == got.total_bpd


def test_a_vae_without_likelihood_has_a_kl_alone() -> None:
    got = elbo_ledger(small_vae(likelihood="mse"), items())
    assert got.total_bpd is None
    assert got.recon_bpd is None
    assert got.kl_bpd > 0
