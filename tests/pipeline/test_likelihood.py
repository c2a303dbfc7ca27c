"""Likelihoods: normalised, accurate in the tails, and with draws and means that agree."""

import math

import mpmath
import pytest
import torch
from torch import Tensor

from vqtrain.models.likelihood import (
    BinnedGaussian,
    Categorical,
    Likelihood,
    LikelihoodConfig,
    LogisticMixture,
    NoLikelihoodError,
    SquaredError,
)
from vqtrain.models.likelihood.binned import FIRST_SCALE, MIN_SCALE, UNIFORM

KINDS = ("categorical", "logistic", "gaussian global", "gaussian pixel")
BINNED = KINDS[1:]


def make(kind: str, levels: int = 17) -> Likelihood:
    made: dict[str, Likelihood] = {
        "categorical": Categorical(levels),
        "logistic": LogisticMixture(levels, mixtures=3),
        "gaussian global": BinnedGaussian(levels, "global"),
        "gaussian pixel": BinnedGaussian(levels, "pixel"),
    }
    return made[kind].eval()


def parameters(likelihood: Likelihood, channels: int = 2, spread: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (3, channels * likelihood.num_parameters, 2, 4)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * spread


def pmf(likelihood: Likelihood, p: Tensor) -> Tensor:
    """`(levels, B, C, *size)` from `log_prob` alone."""
    shape = (len(p), p.shape[1] // likelihood.num_parameters, *p.shape[2:])
    levels = [torch.full(shape, level) for level in range(likelihood.levels)]
    return torch.stack([likelihood.log_prob(p, x) for x in levels]).exp()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("spread", [0.1, 2.0, 100.0, 1e6])
def test_probabilities_of_all_levels_sum_to_one(kind: str, levels: int, spread: float) -> None:
    likelihood = make(kind, levels)
    total = pmf(likelihood, parameters(likelihood, spread=spread)).sum(0)
    assert torch.allclose(total, torch.ones_like(total), rtol=0, atol=1e-10)


def exact_log_prob(kind: str, location: float, raw: float, level: int, levels: int) -> float:
    """The definition, in 60 digits."""
    with mpmath.workdps(60):
        start = mpmath.log(mpmath.expm1(FIRST_SCALE))
        scale = mpmath.log1p(mpmath.exp(raw + start)) + mpmath.mpf(MIN_SCALE) * 2 / (levels - 1)
        cdf = mpmath.ncdf if kind == "gaussian pixel" else lambda v: 1 / (1 + mpmath.exp(-v))
        upper = (mpmath.mpf(2 * level + 1) / (levels - 1) - 1 - location) / scale
        lower = (mpmath.mpf(2 * level - 1) / (levels - 1) - 1 - location) / scale
        lower, upper = (
            -mpmath.inf if level == 0 else lower,
            mpmath.inf if level == levels - 1 else upper,
        )
        if lower > 0:  # symmetric, and 60 digits are not enough for 1 - 1e-100
            lower, upper = -upper, -lower
        mass = (1 if upper == mpmath.inf else cdf(upper)) - (
            0 if lower == -mpmath.inf else cdf(lower)
        )
        return float(mpmath.log((1 - UNIFORM) * mass + mpmath.mpf(UNIFORM) / levels))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["logistic", "gaussian pixel"])
def test_log_prob_is_exact_to_rounding_in_the_bulk_and_in_the_tails(
    kind: str, dtype: torch.dtype
) -> None:
    levels = 256
    likelihood = LogisticMixture(levels, 1).eval() if kind == "logistic" else make(kind, levels)
    eps = torch.finfo(dtype).eps
    for location in (-7.3, -1.0, -0.2, 0.001, 0.97, 30.0):
        for raw in (-30.0, -6.0, -3.0, 0.0, 9.0, 1e4):
            values = [location, raw] if kind == "gaussian pixel" else [0.0, location, raw]
            p = torch.tensor(values, dtype=dtype).view(1, -1, 1)
            at, raw_at = p[0, -2, 0].item(), p[0, -1, 0].item()  # as rounded to dtype
            shifted = raw_at + math.log(math.expm1(FIRST_SCALE))
            scale = math.log1p(math.exp(min(shifted, 700.0))) + MIN_SCALE * 2 / (levels - 1)
            scale = shifted if shifted > 700 else scale
            for level in (0, 1, 26, 127, 128, 254, 255):
                got = likelihood.log_prob(p, torch.tensor([[[level]]])).item()
                expected = exact_log_prob(kind, at, raw_at, level, levels)
                # x, mu and their difference are rounded, the raw scale before it goes into exp
                # (by |raw| eps, for the one of -6 and its shift 8 eps), and the slope of log p is
                # 1 / s for the logistic, and z / s for the normal as far as the floor lets it
                # count (z < 7); the bin's width over s enters log p by its relative error.
                # The normal's two CDFs are subtracted in float64, whatever dtype is.
                distance = (2 + abs(at)) / scale
                slope = 1 if kind == "logistic" else 7
                budget = eps * (10 * slope * distance + 10 * slope**2 + 8 + abs(expected))
                budget += 4 * 2.0**-52 * scale * (levels - 1)  # two functions, two ulps each
                assert abs(got - expected) <= budget, (location, raw, level)


def test_categorical_log_prob_equals_a_hand_computation() -> None:
    p = parameters(make("categorical"))
    x = torch.randint(17, (3, 2, 2, 4), generator=torch.Generator().manual_seed(1))
    got = make("categorical").log_prob(p, x.to(torch.uint8))
    for n, c, i, j in [(0, 0, 0, 0), (2, 1, 1, 3), (1, 0, 1, 2)]:
        logits = p[n, c * 17 : (c + 1) * 17, i, j].tolist()
        by_hand = logits[x[n, c, i, j]] - math.log(sum(math.exp(v) for v in logits))
        assert got[n, c, i, j].item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [2.0, 100.0])
def test_the_mean_is_the_expected_level(kind: str, spread: float) -> None:
    likelihood = make(kind)
    p = parameters(likelihood, spread=spread)
    levels = torch.arange(17, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    assert torch.allclose(likelihood.mean(p), (pmf(likelihood, p) * levels).sum(0), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("spread", [2.0, 100.0])
def test_draws_are_the_inverse_cdf_of_the_probabilities(
    kind: str, levels: int, spread: float
) -> None:
    likelihood = make(kind, levels)
    p = parameters(likelihood, spread=spread)
    uniforms = torch.rand(
        (3, 2, 2, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    cdf = pmf(likelihood, p).cumsum(0)[:-1]
    drawn = likelihood.draw(p, uniforms)
    assert drawn.dtype == torch.int64
    assert torch.equal(drawn, (cdf <= uniforms).sum(0))
    for edge in cdf[:: max(1, levels // 16)]:  # closer to the edges than float32 can tell
        edge = edge.clamp(max=1 - 1e-9)  # beyond, sums differ by their rounding
        for u in ((edge - 1e-11).clamp(min=0), edge + 1e-11):
            assert torch.equal(likelihood.draw(p, u), (cdf <= u).sum(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [2.0, 100.0])
@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53])
def test_the_ends_of_the_uniforms_draw_no_impossible_level(
    kind: str, spread: float, uniform: float
) -> None:
    likelihood = make(kind)
    p = parameters(likelihood, spread=spread)
    drawn = likelihood.draw(p, torch.full((3, 2, 2, 4), uniform, dtype=torch.float64))
    chosen = pmf(likelihood, p).gather(0, drawn[None])[0]
    least = 1e-20 if uniform else 0.0  # at 0 the lowest level is right, however unlikely
    assert (chosen > least).all()


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_stated_frequencies(kind: str) -> None:
    likelihood = make(kind)
    p = parameters(likelihood, channels=1, spread=0.5)[:1, :, :1, :1]
    uniforms = (torch.arange(10000, dtype=torch.float64) + 0.5).view(-1, 1, 1, 1) / 10000
    drawn = likelihood.draw(p.expand(10000, -1, -1, -1), uniforms).flatten()
    share = torch.bincount(drawn, minlength=17) / 10000
    # Evenly spaced uniforms hit each interval of the CDF to within one of them.
    assert torch.allclose(share.double(), pmf(likelihood, p).flatten(), rtol=0, atol=1.01e-4)


@pytest.mark.parametrize("kind", BINNED)
@pytest.mark.parametrize("spread", [1.0, 1e3, 1e6])
def test_no_entry_costs_more_than_its_share_of_the_floor(kind: str, spread: float) -> None:
    likelihood = make(kind, 256)
    p = parameters(likelihood, spread=spread).float()
    least = math.log(UNIFORM / 256)
    worst = pmf(likelihood, p).log().min().item()
    assert worst >= least - 1e-4
    assert spread == 1.0 or worst < least + 1e-3  # the extremes do reach it


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [1.0, 1e3, 1e6])
def test_gradients_are_finite_and_equal_those_of_float64(kind: str, spread: float) -> None:
    likelihood = make(kind, 256)
    p = parameters(likelihood, spread=spread).float()
    x = torch.randint(256, (3, 2, 2, 4), generator=torch.Generator().manual_seed(1))
    x[0, 0, 0, :2] = torch.tensor([0, 255])
    gradients = []
    for parameter in (p.requires_grad_(), p.detach().double().requires_grad_()):
        likelihood.loss(parameter, x).backward()
        gradients.append(parameter.grad)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    if spread == 1.0:
        assert gradients[0].abs().max() > 0
        torch.testing.assert_close(gradients[0].double(), gradients[1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", BINNED)
def test_in_training_what_is_missed_by_far_still_has_a_gradient(kind: str) -> None:
    likelihood = make(kind, 256)
    p = torch.zeros(1, likelihood.num_parameters, 1)
    # A narrow density, in the middle.
    if kind == "gaussian global":
        torch.nn.init.constant_(next(likelihood.parameters()), -5.0)
    else:
        p[:, -likelihood.num_parameters // 3 :] = -5.0
    x = torch.tensor([[[255]]])
    missed = []
    for mode in (True, False):
        parameter = p.clone().requires_grad_()
        likelihood.train(mode).loss(parameter, x).backward()
        missed.append(parameter.grad.abs().max().item())  # type: ignore[union-attr]
    assert missed[0] > 1
    assert missed[1] < 1e-3


def test_the_global_scale_learns_the_spread_of_the_data() -> None:
    likelihood = BinnedGaussian(256, "global")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, 1, 100, 100), generator=generator) * 12
    x = (128 + noise).round().clamp(0, 255).long()
    p = torch.full_like(noise, 128 / 127.5 - 1)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        likelihood.loss(p, x).backward()
        optimizer.step()
    # The entropy of the normal in bins of 1, in nats; 10 000 of them know it to about 0.01.
    entropy = 0.5 * math.log(2 * math.pi * math.e * 144)
    assert likelihood.loss(p, x).item() == pytest.approx(entropy, abs=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_parameters_are_measured_in_float32(kind: str) -> None:
    likelihood = make(kind)
    p = parameters(likelihood).bfloat16()
    x = torch.full((3, 2, 2, 4), 5)
    assert torch.equal(likelihood.log_prob(p, x), likelihood.log_prob(p.float(), x))
    assert likelihood.log_prob(p, x).dtype == torch.float32


def test_a_squared_error_has_a_loss_and_a_mean_and_no_bits() -> None:
    likelihood = SquaredError(256, variance=0.25)
    p = torch.tensor([[[-1.0, 0.0, 1.2]]])
    x = torch.tensor([[[0, 255, 255]]])
    assert not likelihood.has_likelihood
    assert likelihood.loss(p, x).item() == pytest.approx((0 + 1 + 0.04) / 3 / 0.25)
    assert torch.equal(likelihood.mean(p), torch.tensor([[[0.0, 127.5, 255.0]]]))
    with pytest.raises(NoLikelihoodError, match="log_prob must be asked of a likelihood"):
        likelihood.log_prob(p, x)
    with pytest.raises(NoLikelihoodError, match="draw must be asked of a likelihood"):
        likelihood.draw(p, torch.rand(1, 1, 3))


def test_the_configuration_names_the_likelihood() -> None:
    made = [
        LikelihoodConfig(likelihood=kind, mixtures=4, scale="global").make_likelihood(17)  # type: ignore[arg-type]
        for kind in ("categorical", "logistic", "gaussian", "mse")
    ]
    assert [(type(m), m.num_parameters) for m in made] == [
        (Categorical, 17),
        (LogisticMixture, 12),
        (BinnedGaussian, 1),
        (SquaredError, 1),
    ]


def test_broken_contracts_are_named() -> None:
    with pytest.raises(ValueError, match="parameters must have a multiple of 17 channels, got 16"):
        Categorical(17).mean(torch.zeros(1, 16, 2, 2))
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        Categorical(1)
    with pytest.raises(ValueError, match="mixtures must be at least 1, got 0"):
        LogisticMixture(17, 0)
    with pytest.raises(ValueError, match='scale must be "global" or "pixel", got \'item\''):
        BinnedGaussian(17, "item")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="variance must be positive, got 0"):
        SquaredError(17, 0.0)
