"""The numbers of an evaluation, against hand computations and cases with a known answer."""

import math

import pytest
import torch

from vqtrain.codes import CodeSet
from vqtrain.data import ImageDataset, ImageSet, load_digits_dataset
from vqtrain.evaluate import warnings
from vqtrain.metrics.classify import score_samples
from vqtrain.metrics.ladder import ladder
from vqtrain.metrics.ledger import Ledger, code_usage, conditioning_gap, ledger, unigram
from vqtrain.models import VQVAE, GatedPixelCNN, PixelCNNConfig, VQVAEConfig

K, CLASSES = 4, 3


def image_set(n: int, levels: int, seed: int = 0) -> ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(levels, (n, 1, 4, 4), generator=generator).to(torch.uint8)
    return ImageSet(images, torch.arange(n) % CLASSES, torch.arange(n))


def small_prior() -> GatedPixelCNN:
    torch.manual_seed(1)
    config = PixelCNNConfig(width=4, layers=2)
    return GatedPixelCNN(config, num_embeddings=K, num_labels=CLASSES).eval()


@torch.no_grad()
def test_the_ledger_adds_up_and_equals_a_hand_computation() -> None:
    torch.manual_seed(0)
    config = VQVAEConfig(hidden=4, residual_hidden=4, num_embeddings=K, embedding_dim=2)
    tokenizer = VQVAE(config, channels=1, levels=5, num_labels=CLASSES).eval()
    prior, images = small_prior(), image_set(9, levels=5)
    codes = CodeSet(tokenizer.encode(images.images), images.labels, images.rows)
    train_codes = torch.tensor([[[0, 0], [0, 1]]])
    got = ledger(tokenizer, prior, images, codes, train_codes)

    in_bits = 1 / math.log(2) / 16
    recon = tokenizer.nll(images.images, images.labels) * in_bits
    coded = prior.nll(codes.codes, images.labels) * in_bits
    frequencies = torch.tensor([4 / 8, 2 / 8, 1 / 8, 1 / 8])  # counts 3, 1, 0, 0, each plus 1
    assert got.recon == pytest.approx(recon.mean().item(), rel=1e-6)
    assert got.prior == pytest.approx(coded.mean().item(), rel=1e-6)
    assert got.total == pytest.approx(got.recon + got.prior, rel=1e-6)
    assert got.uniform == pytest.approx(4 * 2 / 16)
    bits = -frequencies.log2()[codes.codes].sum((1, 2)).mean().item() / 16
    assert got.unigram == pytest.approx(bits, rel=1e-6)
    spread = (recon + coded).std().item() / 3
    assert got.standard_error == pytest.approx(spread, rel=1e-4)

    with pytest.raises(ValueError, match="codes must be of the same rows as images"):
        ledger(tokenizer, prior, images, codes._replace(rows=codes.rows + 1), train_codes)


def test_unigram_frequencies_sum_to_one_and_none_is_zero() -> None:
    p = unigram(torch.zeros(1, 2, 2, dtype=torch.uint8), K)
    assert p.sum().item() == pytest.approx(1)
    assert p.tolist() == pytest.approx([5 / 8, 1 / 8, 1 / 8, 1 / 8])


def test_usage_of_equal_codes_is_full_and_of_one_code_is_one() -> None:
    equal = code_usage(torch.arange(8).view(2, 2, 2) % K, K)
    assert (equal.used, equal.perplexity) == (1.0, pytest.approx(K))
    assert equal.ceiling == pytest.approx(1 - (3 / 4) ** 8)
    single = code_usage(torch.full((2, 2, 2), 3), K)
    assert (single.used, single.perplexity) == (0.25, pytest.approx(1))
    assert single.counts.tolist() == [0, 0, 0, 8]


@torch.no_grad()
def test_a_prior_that_ignores_the_label_has_no_conditioning_gap() -> None:
    prior = small_prior()
    codes = prior.generate(torch.arange(90) % CLASSES, (2, 2), torch.Generator().manual_seed(0))
    split = CodeSet(codes, torch.arange(90) % CLASSES, torch.arange(90))
    gap = conditioning_gap(prior, split, CLASSES)
    assert 0 < gap < math.log2(CLASSES)
    for layer in prior.layers:
        layer.label.weight.zero_()  # type: ignore[union-attr, operator]
    assert conditioning_gap(prior, split, CLASSES) == pytest.approx(0, abs=1e-6)


def test_a_prior_that_learned_nothing_is_a_warning() -> None:
    def found(prior: float, unigram: float, gap: float = 1.0) -> list[str]:
        bits = Ledger(1.0, 0.5, prior, unigram, uniform=0.75, standard_error=0.01)
        return [text.split(" must ")[0] for text in warnings(bits, gap)]

    assert found(prior=0.5, unigram=0.7) == []
    assert found(prior=0.7, unigram=0.7) == ["prior_bpd"]
    assert found(prior=0.5, unigram=0.75) == ["unigram_bpd"]
    assert found(prior=float("nan"), unigram=0.7) == ["prior_bpd"]
    assert found(prior=0.5, unigram=0.7, gap=0.05) == ["conditioning gap"]


def dataset_of(images: torch.Tensor, labels: torch.Tensor, levels: int) -> ImageDataset:
    parts = [ImageSet(images, labels, torch.arange(len(labels)))] * 3
    return ImageDataset(*parts, levels, tuple("abc"), CLASSES)


def test_the_ladder_finds_what_each_rung_can_see() -> None:
    n, labels = 600, torch.arange(600) % CLASSES
    noise = torch.randint(4, (n,), generator=torch.Generator().manual_seed(0))
    # Pixel 0 is noise, pixel 1 repeats it, pixels 2 and 3 are the class.
    pixels = torch.stack((noise // 2 * 3, noise // 2 * 3, labels, labels), dim=1)
    rungs = ladder(dataset_of(pixels.view(n, 1, 2, 2).to(torch.uint8), labels, levels=4))
    close = {"abs": 0.04}
    assert rungs["uniform"] == 2
    assert rungs["independent"] == pytest.approx((1 + 1 + 2 * math.log2(3)) / 4, **close)
    assert rungs["class_independent"] == pytest.approx((1 + 1) / 4, **close)
    assert rungs["class_autoregressive"] == pytest.approx(1 / 4, **close)
    # Without the class, pixel 2 must be learned and pixel 3 copied, by a linear rule.
    assert 1 / 4 < rungs["autoregressive"] < rungs["independent"]


def test_real_digits_pass_the_sample_scores_and_shuffled_labels_fail_them() -> None:
    data = load_digits_dataset()
    train, test = data.train, data.test
    good = score_samples(train.images, train.labels, train, test, data.levels)
    assert good.label_agreement > 0.99
    assert good.cas == good.ceiling > 0.98
    assert len(good.per_class) == 10
    bad = score_samples(train.images, train.labels.roll(7), train, test, data.levels)
    assert bad.label_agreement < 0.2
    assert bad.cas < 0.4
