"""Scores of samples, against other libraries' numbers and cases with a known answer."""

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from vqtrain.data.dataset import Dataset
from vqtrain.data.digits import load_digits_dataset
from vqtrain.metrics.classify import score_samples
from vqtrain.metrics.distances import distances, frechet, kernel, most_features
from vqtrain.metrics.features import classifier_features, principal_components
from vqtrain.metrics.neighbours import QUANTILES, neighbours


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_digits_dataset()


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Given(nn.Module):
    """Takes features for pictures, so that torchmetrics measures what we measure."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_the_frechet_distance_is_that_of_torchmetrics() -> None:
    a, b = normal(200, 6, 0), normal(150, 6, 1) * torch.arange(1.0, 7) + 0.5
    theirs = FrechetInceptionDistance(feature=Given()).set_dtype(torch.float64)
    theirs.update(a, real=True)
    theirs.update(b, real=False)
    assert frechet(a, b) == pytest.approx(theirs.compute().item(), rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    # By the definition, pair by pair.
    a, b = normal(7, 3, 0), normal(5, 3, 1)

    def k(x: Tensor, y: Tensor) -> float:
        return ((x @ y).item() / 3 + 1) ** 3

    expected = (
        sum(k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j) / 42
        + sum(k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j) / 20
        - 2 * sum(k(x, y) for x in a for y in b) / 35
    )
    assert kernel(a, b) == pytest.approx(expected, rel=1e-9)
    values = torch.tensor([kernel(normal(50, 3, i), normal(50, 3, 100 + i)) for i in range(100)])
    assert abs(values.mean()) < 3 * values.std() / 10
    assert kernel(normal(50, 3, 0) + 1, normal(50, 3, 1)) > 10 * values.std()


def test_samples_of_the_same_distribution_lie_at_the_floor_and_others_above() -> None:
    real, same = normal(400, 8, 0), normal(300, 8, 1)
    good = distances(same, real)
    assert (good.features, good.items) == (8, 200)
    for distance in (good.fd_local, good.kernel_local):
        low, high = distance.interval
        assert low < distance.value < high
        assert low < distance.floor_interval[1]
        assert high > distance.floor_interval[0]
    bad = distances(same + 0.5, real)
    assert bad.fd_local.interval[0] > bad.fd_local.floor_interval[1]
    assert bad.kernel_local.interval[0] > bad.kernel_local.floor_interval[1]
    assert distances(same, real) == good


def test_too_few_items_for_the_features_are_refused() -> None:
    assert most_features(360) == 18
    assert most_features(10**6) == 64
    with pytest.raises(ValueError, match="must be at least 10 d = 80, got 79"):
        distances(normal(79, 8, 0), normal(400, 8, 1))


def test_samples_that_copy_the_training_set_show_in_their_distances(dataset: Dataset) -> None:
    train, test = dataset.clean_train().x, dataset.test.x
    copies = neighbours(train[:100], test, train, 17)
    assert copies.duplicates_of_train == 1
    assert copies.duplicates_among_samples == 0
    assert copies.quantiles["samples"] == [0] * len(QUANTILES)
    fresh = neighbours(test[:50].repeat(2, 1, 1, 1), test, train, 17)
    assert fresh.duplicates_of_train == 0
    assert fresh.duplicates_among_samples == 0.5
    # Real held-out digits are as far from the training set as training digits from one another.
    median = QUANTILES.index(0.5)
    assert fresh.quantiles["held_out"][median] == pytest.approx(1.05, abs=0.05)
    assert fresh.quantiles["train"][median] == pytest.approx(1.03, abs=0.05)


def test_real_digits_pass_the_sample_scores_and_shuffled_labels_fail_them(
    dataset: Dataset,
) -> None:
    train, test = dataset.clean_train(), dataset.test
    features = classifier_features(train.x, 17)
    assert features.name == "pixels"
    good = score_samples(train.x, train.labels, train, test, features)
    assert good.label_agreement > 0.99
    assert good.cas == good.ceiling > 0.98
    assert len(good.per_class) == 10
    bad = score_samples(train.x, train.labels.roll(7), train, test, features)
    assert bad.label_agreement < 0.2
    assert bad.cas < 0.4


def test_sound_is_told_apart_by_pitch_and_not_by_phase() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    phase = torch.rand(120, 1, generator=generator) * 6.3
    pitch = torch.tensor([0.2, 0.4, 0.8])[labels][:, None]
    sound = ((torch.sin(torch.arange(512) * pitch + phase) + 1) * 127.5).to(torch.uint8)[:, None]
    features = classifier_features(sound[:60], 256)
    assert features.name == "60 principal components of log spectra"
    a, b = features(sound[:60]), features(sound[60:])
    nearest = torch.cdist(b, a).argmin(1)
    assert (labels[:60][nearest] == labels[60:]).all()


def test_principal_components_are_white_on_what_they_were_fitted_to(dataset: Dataset) -> None:
    train = dataset.clean_train().x
    found = principal_components(train, 17, 18)(train)
    assert torch.allclose(torch.cov(found.T), torch.eye(18), atol=1e-3)
