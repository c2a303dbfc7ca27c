"""The gated PixelCNN: causal, without a blind spot, normalised, and sampled from what it says."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from vqtrain.priors import CodeSpace, GatedPixelCNN, PixelCNNConfig, Sampler

GRIDS = [(6,), (4, 4), (3, 7), (6, 2), (1, 5), (2, 3, 4), (3, 2, 2)]
K, LABELS = 5, 3


def make(grid: tuple[int, ...], num_embeddings: int = K) -> GatedPixelCNN:
    """A float64 model whose receptive field covers the grid: first reach 2, one more per layer."""
    torch.manual_seed(0)
    config = PixelCNNConfig(width=8, layers=max(grid), first_kernel=5, kernel=3, dropout=0.5)
    model = GatedPixelCNN(config, CodeSpace(num_embeddings, grid, LABELS))
    return model.double().eval()


def changed_positions(model: GatedPixelCNN, codes: Tensor, labels: Tensor, t: int) -> Tensor:
    """Which logits move, in raster order, when code t is replaced by each other value in turn."""
    before = model(codes, labels).flatten(2)
    moved = torch.zeros(before.shape[2], dtype=torch.bool)
    for shift in range(1, K):
        other = codes.flatten(1).clone()
        other[:, t] = (other[:, t] + shift) % K
        after = model(other.view_as(codes), labels).flatten(2)
        moved |= (after != before).any(1).any(0)
    return moved


@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_a_code_moves_every_later_logit_and_no_logit_at_or_before_it(
    grid: tuple[int, ...],
) -> None:
    model = make(grid)
    codes, labels = torch.randint(K, (2, *grid)), torch.tensor([0, 2])
    positions = math.prod(grid)
    for t in range(positions):
        expected = torch.arange(positions) > t  # equality: no leak, and no blind spot either
        assert torch.equal(changed_positions(model, codes, labels, t), expected), f"code {t}"


@torch.no_grad()
def test_the_label_moves_every_logit() -> None:
    model = make((4, 4))
    codes = torch.randint(K, (1, 4, 4))
    difference = model(codes, torch.tensor([0])) - model(codes, torch.tensor([1]))
    assert bool((difference.abs().amax(1) > 1e-6).all())


@torch.no_grad()
def test_probabilities_of_all_grids_sum_to_one() -> None:
    model = make((2, 2), num_embeddings=3)
    grids = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    for label in range(LABELS):
        labels = torch.full((len(grids),), label)
        total = (-model.nll(grids, labels)).exp().sum().item()
        assert total == pytest.approx(1, abs=1e-12)


@torch.no_grad()
def test_nll_is_the_sum_of_conditional_code_lengths_in_nats() -> None:
    model = make((3, 2))
    codes, labels = torch.randint(K, (4, 3, 2)), torch.tensor([0, 1, 2, 0])
    p = model(codes, labels).softmax(1)
    for n in range(4):
        by_hand = 0.0
        for i, j in itertools.product(range(3), range(2)):
            by_hand -= p[n, codes[n, i, j], i, j].log().item()
        assert model.nll(codes, labels)[n].item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_each_code_is_the_inverse_cdf_of_its_own_uniform(temperature: float) -> None:
    model, grid = make((3, 4)), (3, 4)
    labels = torch.arange(LABELS).repeat(8)
    codes = model.generate(
        labels, torch.Generator().manual_seed(7), Sampler(temperature=temperature)
    )
    uniforms = torch.rand(
        24, *grid, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    with torch.no_grad():
        cdf = (model(codes, labels) / temperature).softmax(1).cumsum(1)
    upper = cdf.gather(1, codes[:, None])[:, 0]
    lower = torch.where(codes > 0, cdf.gather(1, (codes[:, None] - 1).clamp(min=0))[:, 0], 0)
    assert bool((lower <= uniforms).all())
    assert bool((uniforms < upper).all())


def test_generation_is_decided_by_the_seed_alone() -> None:
    model = make((4, 4))
    labels = torch.arange(LABELS).repeat(4)

    def draw(seed: int) -> Tensor:
        return model.generate(labels, torch.Generator().manual_seed(seed))

    first = draw(1)
    torch.manual_seed(99)
    assert torch.equal(first, draw(1))
    assert not torch.equal(first, draw(2))


def test_low_temperature_takes_the_most_likely_code() -> None:
    model = make((2, 3))
    labels = torch.arange(LABELS)
    codes = model.generate(labels, torch.Generator().manual_seed(0), Sampler(temperature=1e-6))
    with torch.no_grad():
        assert torch.equal(model(codes, labels).argmax(1), codes)


def test_a_description_rebuilds_the_model() -> None:
    model = make((4, 4))
    twin = GatedPixelCNN.from_description(model.description()).double().eval()
    twin.load_state_dict(model.state_dict())
    codes, labels = torch.randint(K, (2, 4, 4)), torch.tensor([0, 1])
    assert torch.equal(model(codes, labels), twin(codes, labels))


def test_broken_contracts_are_named() -> None:
    model = make((4, 4))
    with pytest.raises(ValueError, match=r"codes must have shape \(B, 4, 4\), got \(4, 4\)"):
        model(torch.zeros(4, 4, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        Sampler(temperature=0.0)
    with pytest.raises(ValueError, match="kernel must be odd, got 4"):
        PixelCNNConfig(kernel=4)
