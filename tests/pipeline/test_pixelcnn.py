"""The gated PixelCNN: its code lengths, and samples that are drawn from what it says."""

import itertools

import pytest
import torch
from pipeline.priors_contract import LABELS, K
from torch import Tensor

from vqtrain.priors import CodeSpace, GatedPixelCNN, PixelCNNConfig, Sampler


def make(space: CodeSpace) -> GatedPixelCNN:
    """A float64 model in eval mode."""
    torch.manual_seed(0)
    config = PixelCNNConfig(width=8, layers=max(space.grid), dropout=0.5, label_dropout=0.1)
    return GatedPixelCNN(config, space).double().eval()


@torch.no_grad()
def test_nll_is_the_sum_of_conditional_code_lengths_in_nats() -> None:
    model = make(CodeSpace(K, (3, 2), LABELS))
    codes, labels = torch.randint(K, (4, 3, 2)), torch.tensor([0, 1, 2, 0])
    p = model(codes, labels).softmax(1)
    for n in range(4):
        by_hand = 0.0
        for i, j in itertools.product(range(3), range(2)):
            by_hand -= p[n, codes[n, i, j], i, j].log().item()
        assert model.nll(codes, labels)[n].item() == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("sampler", [Sampler(), Sampler(temperature=0.5), Sampler(guidance=3.0)])
def test_each_code_is_the_inverse_cdf_of_its_own_uniform(sampler: Sampler) -> None:
    model = make(CodeSpace(K, (3, 4), LABELS))
    labels = torch.arange(LABELS).repeat(8)
    codes = model.generate(labels, torch.Generator().manual_seed(7), sampler)
    uniforms = torch.rand(
        24, 3, 4, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    with torch.no_grad():
        null = model(codes, torch.full_like(labels, model.space.null_label))
        logits = null + sampler.guidance * (model(codes, labels) - null)
        cdf = (logits / sampler.temperature).softmax(1).cumsum(1)
    upper = cdf.gather(1, codes[:, None])[:, 0]
    lower = torch.where(codes > 0, cdf.gather(1, (codes[:, None] - 1).clamp(min=0))[:, 0], 0)
    assert bool((lower <= uniforms).all())
    assert bool((uniforms < upper).all())


def test_generation_is_decided_by_the_seed_alone() -> None:
    model = make(CodeSpace(K, (4, 4), LABELS))
    labels = torch.arange(LABELS).repeat(4)

    def draw(seed: int) -> Tensor:
        return model.generate(labels, torch.Generator().manual_seed(seed))

    first = draw(1)
    torch.manual_seed(99)
    assert torch.equal(first, draw(1))
    assert not torch.equal(first, draw(2))


def test_low_temperature_takes_the_most_likely_code() -> None:
    model = make(CodeSpace(K, (2, 3), LABELS))
    labels = torch.arange(LABELS)
    codes = model.generate(labels, torch.Generator().manual_seed(0), Sampler(temperature=1e-6))
    with torch.no_grad():
        assert torch.equal(model(codes, labels).argmax(1), codes)


def test_sampling_is_cached_unless_it_is_asked_not_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(CodeSpace(K, (2, 3), LABELS))
    monkeypatch.setattr(GatedPixelCNN, "_features", None)
    labels, generator = torch.arange(LABELS), torch.Generator().manual_seed(0)
    assert model.generate(labels, generator).shape == (LABELS, 2, 3)
    with pytest.raises(TypeError):
        model.generate(labels, generator, cached=False)


def test_dropout_is_never_sampled_and_guidance_needs_label_dropout() -> None:
    model = make(CodeSpace(K, (2, 3), LABELS))
    labels, generator = torch.arange(LABELS), torch.Generator()
    with pytest.raises(RuntimeError, match="generate must be called in eval mode"):
        model.train().generate(labels, generator)
    plain = GatedPixelCNN(PixelCNNConfig(width=8), model.space).eval()
    with pytest.raises(ValueError, match="guidance must be 1 for a prior trained without label"):
        plain.generate(labels, generator, Sampler(guidance=2.0))
    known = (torch.zeros(LABELS, 2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"a mask of shape \(2, 3\), got .* and \(3, 2\)"):
        plain.generate(labels, generator, known=known)


def test_a_description_rebuilds_the_model() -> None:
    model = make(CodeSpace(K, (4, 4), LABELS))
    twin = GatedPixelCNN.from_description(model.description()).double().eval()
    twin.load_state_dict(model.state_dict())
    codes, labels = torch.randint(K, (2, 4, 4)), torch.tensor([0, 1])
    assert torch.equal(model(codes, labels), twin(codes, labels))


def test_broken_contracts_are_named() -> None:
    model = make(CodeSpace(K, (4, 4), LABELS))
    with pytest.raises(ValueError, match=r"codes must have shape \(B, 4, 4\), got \(4, 4\)"):
        model(torch.zeros(4, 4, dtype=torch.long), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="temperature must be positive and finite, got 0"):
        Sampler(temperature=0.0)
    with pytest.raises(ValueError, match="kernel must be odd, got 4"):
        PixelCNNConfig(kernel=4)
