"""A draw takes each code with its probability, and never one that has none."""

import pytest
import torch
from torch import Tensor

from vqtrain.priors.sampling import Sampler, draw, guided

LARGEST = 1 - 2**-53  # the largest number that torch.rand gives in float64
INF = float("inf")


def strata(count: int) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def shares(probabilities: list[float], sampler: Sampler, count: int = 1000) -> Tensor:
    """Share of each code among evenly spread uniforms: its probability, within 1 / count."""
    logits = torch.tensor(probabilities, dtype=torch.float64).log().expand(count, -1)
    drawn = draw(logits, strata(count), sampler)
    return drawn.bincount(minlength=len(probabilities)) / count


def one(probabilities: list[float], uniform: float, sampler: Sampler | None = None) -> int:
    logits = torch.tensor([probabilities], dtype=torch.float64).log()
    drawn = draw(logits, torch.tensor([uniform], dtype=torch.float64), sampler or Sampler())
    return int(drawn.item())


P = [0.1, 0.4, 0.2, 0.3]


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Sampler(), P),
        (Sampler(temperature=0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (Sampler(top_k=1), [0, 1, 0, 0]),
        (Sampler(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Sampler(top_k=4), P),
        (Sampler(top_k=99), P),
        (Sampler(top_p=0.39), [0, 1, 0, 0]),
        (Sampler(top_p=0.41), [0, 4 / 7, 0, 3 / 7]),
        (Sampler(top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9]),
        (Sampler(top_p=1e-300), [0, 1, 0, 0]),
        (Sampler(top_p=0.999), P),
        # 16 + 9 of 30 reach 0.8 at this temperature; of the plain probabilities three would.
        (Sampler(temperature=0.5, top_p=0.8), [0, 16 / 25, 0, 9 / 25]),
        # Of the two that top-k keeps, one already has 4 / 7.
        (Sampler(top_k=2, top_p=0.55), [0, 1, 0, 0]),
    ],
)
def test_codes_are_drawn_with_their_probabilities(sampler: Sampler, expected: list[float]) -> None:
    assert (shares(P, sampler) - torch.tensor(expected)).abs().max() <= 1 / 1000 + 1e-9


@pytest.mark.parametrize("uniform", [0.0, 0.25, 0.5, LARGEST])
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(top_k=3), Sampler(top_p=0.99)])
def test_a_code_without_probability_is_never_drawn(uniform: float, sampler: Sampler) -> None:
    assert one([0.0, 0.5, 0.0, 0.5, 0.0], uniform, sampler) in (1, 3)


def test_a_uniform_on_a_boundary_takes_the_upper_code() -> None:
    assert [one([0.25] * 4, u) for u in (0.0, 0.25, 0.5, 0.75)] == [0, 1, 2, 3]
    below = [torch.tensor(u).double().nextafter(torch.tensor(0.0).double()) for u in (0.25, 0.5)]
    assert [one([0.25] * 4, u.item()) for u in below] == [0, 1]


@pytest.mark.parametrize("k", [3, 7, 10, 1000, 4097])
def test_the_largest_uniform_draws_the_last_code_although_sums_are_rounded(k: int) -> None:
    logits = torch.randn(64, k, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    drawn = draw(logits, torch.full((64,), LARGEST, dtype=torch.float64), Sampler())
    assert bool((drawn == k - 1).all())


def test_ties_are_kept_whole_by_top_k_and_go_to_the_lower_code_by_top_p() -> None:
    tied = [0.2, 0.4, 0.2, 0.2]
    assert torch.equal(shares(tied, Sampler(top_k=2)) > 0, torch.tensor([True] * 4))
    kept = shares(tied, Sampler(top_p=0.5)) > 0
    assert kept.tolist() == [True, True, False, False]
    kept = shares([1 / 64] * 64, Sampler(top_p=0.5)) > 0
    assert torch.equal(kept, torch.arange(64) < 32)  # exactly p is enough


def test_half_precision_logits_are_drawn_in_float64() -> None:
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    cdf = (logits.double() / 0.9).softmax(1).cumsum(1)[0, :-1]
    # 1e-10 is far above the rounding of float64 sums and far below that of float32 ones.
    above, below = (
        draw(logits.expand(len(cdf), -1), cdf + side, Sampler(temperature=0.9))
        for side in (1e-10, -1e-10)
    )
    assert torch.equal(below, torch.arange(len(cdf)))
    assert torch.equal(above, torch.arange(len(cdf)) + 1)


def test_a_row_is_drawn_alike_alone_and_in_a_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 33, generator=generator)
    uniforms = torch.rand(8, generator=generator, dtype=torch.float64)
    sampler = Sampler(temperature=0.8, top_k=20, top_p=0.9)
    alone = [draw(logits[i : i + 1], uniforms[i : i + 1], sampler) for i in range(8)]
    assert torch.equal(draw(logits, uniforms, sampler), torch.cat(alone))


def test_guidance_one_is_the_conditional_model_and_zero_the_null_one() -> None:
    conditional, null = torch.randn(2, 3, 4, dtype=torch.float64)
    assert torch.equal(guided(conditional, null, 1.0), conditional)
    assert torch.equal(guided(conditional, null, 0.0), null)
    expected = null + 3 * (conditional - null)
    assert torch.allclose(guided(conditional, null, 3.0), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"temperature": INF}, "temperature must be positive and finite, got inf"),
        ({"top_k": -1}, "top_k must be at least 0, got -1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must be in \(0, 1\], got 1.1"),
        ({"guidance": float("nan")}, "guidance must be finite, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(**settings)  # type: ignore[arg-type]
