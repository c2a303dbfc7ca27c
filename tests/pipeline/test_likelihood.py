"""The categorical likelihood: normalised over grey levels, with a mean and draws that agree."""

import math

import pytest
import torch

from vqtrain.models.likelihood import Categorical

LEVELS = 17


def parameters(channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (3, channels * LEVELS, 2, 4)
    return torch.randn(shape, generator=generator, dtype=torch.float64) * 3


def every_level(like: torch.Tensor, channels: int) -> list[torch.Tensor]:
    return [torch.full((3, channels, *like.shape[2:]), level) for level in range(LEVELS)]


@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities_of_all_levels_sum_to_one(channels: int) -> None:
    p = parameters(channels)
    likelihood = Categorical(LEVELS)
    total = sum(likelihood.log_prob(p, x).exp() for x in every_level(p, channels))
    assert torch.allclose(total, torch.ones_like(total), atol=1e-12)


def test_log_prob_equals_a_hand_computation() -> None:
    p = parameters()
    x = torch.randint(LEVELS, (3, 2, 2, 4), generator=torch.Generator().manual_seed(1))
    got = Categorical(LEVELS).log_prob(p, x.to(torch.uint8))
    for n, c, i, j in [(0, 0, 0, 0), (2, 1, 1, 3), (1, 0, 1, 2)]:
        logits = p[n, c * LEVELS : (c + 1) * LEVELS, i, j].tolist()
        by_hand = logits[x[n, c, i, j]] - math.log(sum(math.exp(v) for v in logits))
        assert got[n, c, i, j].item() == pytest.approx(by_hand, rel=1e-12)


def test_mean_is_the_expected_level() -> None:
    p = parameters()
    likelihood = Categorical(LEVELS)
    levels = every_level(p, 2)
    expected = sum(likelihood.log_prob(p, x).exp() * level for level, x in enumerate(levels))
    assert torch.allclose(likelihood.mean(p), expected, atol=1e-12)


def test_draws_have_the_stated_probabilities() -> None:
    p = parameters(1)[:1, :, :1, :1]
    uniforms = (torch.arange(10000, dtype=torch.float64) + 0.5).view(-1, 1, 1, 1) / 10000
    drawn = Categorical(LEVELS).draw(p.expand(10000, -1, -1, -1), uniforms).flatten()
    share = torch.bincount(drawn, minlength=LEVELS) / 10000
    # Evenly spaced uniforms hit each interval of the CDF to within one of them.
    assert torch.allclose(share.double(), p.flatten().softmax(0), atol=1.01e-4)


def test_wrong_channel_count_is_named() -> None:
    with pytest.raises(ValueError, match="parameters must have a multiple of 17 channels, got 16"):
        Categorical(LEVELS).mean(torch.zeros(1, 16, 2, 2))
    with pytest.raises(ValueError, match="levels must be at least 2, got 1"):
        Categorical(1)
