"""Procedural sets: no item comes back, held-out items are fixed, and rules read what is shown."""

import pytest
import torch

from vqtrain.data import DataConfig, Dataset, load_dataset
from vqtrain.data.counter import uniforms
from vqtrain.data.digits import load_digits_dataset
from vqtrain.data.rules import RULES
from vqtrain.data.sound import from_mu_law, mu_law

NAMES = ("shapes", "tones", "moving-digits")


def load(name: str, seed: int = 0, train_size: int = 48) -> Dataset:
    return load_dataset(DataConfig(name=name, train_size=train_size, held_out=72), seed)


def splitmix64(state: int) -> int:
    """The output function in Python's integers."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


def test_uniforms_are_splitmix64_of_each_part_of_the_counter() -> None:
    got = uniforms((2, 77), torch.tensor([5, 10**12]), torch.tensor([0, 3]), 2)
    for item, (row, draw) in enumerate([(5, 0), (10**12, 3)]):
        for factor in range(2):
            state = 0
            for part in (2, 77, row, draw, factor):
                state = splitmix64(((state ^ part) + 0x9E3779B97F4A7C15) % 2**64)
            assert got[item, factor].item() == (state >> 11) * 2.0**-53


def test_uniforms_are_uniform_and_independent_of_their_neighbours() -> None:
    rows = torch.arange(20000)
    u = uniforms((0, 0), rows, torch.zeros_like(rows), 3)
    later = uniforms((0, 0), rows, torch.ones_like(rows), 3)
    every = torch.cat((u, later, u.roll(1, 0)), dim=1)
    assert (every.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 20000) ** 0.5
    correlation = torch.corrcoef(every.T) - torch.eye(9)
    assert correlation.abs().max() < 5 / 20000**0.5
    counts = torch.histc(u, bins=100, min=0, max=1)
    assert ((counts - 600).square() / 600).sum() < 99 + 5 * (2 * 99) ** 0.5  # chi squared


@pytest.mark.parametrize("name", NAMES)
def test_every_epoch_has_new_items_and_any_of_them_can_be_made_again(name: str) -> None:
    train = load(name).train
    rows = torch.arange(train.size)
    epochs = [train.batch(rows, torch.full_like(rows, epoch)) for epoch in (0, 1, 2)]
    items = torch.cat([epoch.x for epoch in epochs]).flatten(1)
    assert len(items.unique(dim=0)) == len(items)
    mixed = torch.randperm(train.size, generator=torch.Generator().manual_seed(0))[:7]
    again = train.batch(mixed, torch.full_like(mixed, 2))
    for got, expected in zip(again, epochs[2].take(mixed), strict=True):
        assert torch.equal(got, expected)
    assert train.draws is None
    with pytest.raises(ValueError, match="rows must be between 0 and 47, got 48"):
        train.batch(torch.tensor([48]), torch.tensor([0]))


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_balanced_and_items_fit_the_signal(name: str) -> None:
    data = load(name)
    for split in (data.clean_train(), data.validation, data.test):
        assert split.x.dtype == torch.uint8
        assert split.x.max().item() < data.signal.levels
        data.signal.check(split.x)
        counts = torch.bincount(split.labels, minlength=len(data.class_names))
        assert counts.max() - counts.min() <= 1
    assert data.signal.num_labels == len(data.class_names)


@pytest.mark.parametrize("name", NAMES)
def test_held_out_items_do_not_depend_on_the_seed_and_are_not_trained_on(name: str) -> None:
    one, other = load(name, seed=0), load(name, seed=1)
    for before, after in ((one.validation, other.validation), (one.test, other.test)):
        assert all(map(torch.equal, before, after))
    assert not torch.equal(one.clean_train().x, other.clean_train().x)
    items = torch.cat([one.validation.x, one.test.x, one.clean_train().x]).flatten(1)
    assert len(items.unique(dim=0)) == len(items)


@pytest.mark.parametrize("name", ["shapes", "tones"])
def test_rules_read_what_is_shown(name: str) -> None:
    data = load_dataset(DataConfig(name=name, held_out=600), seed=0)
    rule = RULES[name]
    assert min(rule.accuracy(data.test.x, data.test.labels).values()) >= 0.995
    # Decoder means are floating point, blurred and noisy.
    noise = torch.randn(data.test.x.shape, generator=torch.Generator().manual_seed(0))
    blurred = data.test.x + 3 * noise
    assert min(rule.accuracy(blurred, data.test.labels).values()) >= 0.98
    wrong = rule.accuracy(data.test.x, data.test.labels.roll(len(data.class_names) // 2 - 1))
    assert max(wrong.values()) < 0.7


def test_rules_say_when_there_is_nothing_to_read() -> None:
    grey = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
    silence = torch.full((2, 1, 1024), 128, dtype=torch.uint8)
    for name, nothing in (("shapes", grey), ("tones", silence)):
        for factor in RULES[name].read(nothing):
            assert factor.tolist() == [-1, -1]


def test_a_moving_digit_keeps_its_pixels_and_bounces() -> None:
    data = load("moving-digits")
    videos = data.test.x[:, 0]
    # Every frame shows the same ink: the digit never leaves the picture.
    ink = videos.flatten(2).sum(-1, dtype=torch.int64)
    assert bool((ink == ink[:, :1]).all())
    moved = (videos[:, 1:] != videos[:, :-1]).flatten(2).any(-1)
    assert moved.double().mean() > 0.9
    # It is a digit of the test split, of the class that the label names.
    source = load_digits_dataset().test
    windows = videos[:, 0].unfold(1, 8, 1).unfold(2, 8, 1).flatten(1, 2)
    for number, label in enumerate(data.test.labels[:20].tolist()):
        pool = source.x[source.labels == label, 0]
        assert bool((windows[number, :, None] == pool).flatten(2).all(-1).any())


@pytest.mark.parametrize("levels", [16, 256])
def test_mu_law_is_undone_up_to_its_step(levels: int) -> None:
    wave = torch.linspace(-1, 1, 1001)
    x = mu_law(wave, levels)
    assert (x.min(), x.max()) == (0, levels - 1)
    assert bool((x.diff() >= 0).all())
    assert torch.equal(mu_law(from_mu_law(x, levels), levels), x)
    fine = wave.abs() < 0.01  # where a linear scale of as many levels would have a step of 2/255
    assert (from_mu_law(mu_law(wave)) - wave)[fine].abs().max() < 5e-4
    assert mu_law(torch.tensor([-7.0, 7.0]), levels).tolist() == [0, levels - 1]


def test_a_wrong_data_section_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"data.name must be among digits, photos, .* got 'mnist'"
    ):
        load_dataset(DataConfig(name="mnist"), seed=0)
    with pytest.raises(ValueError, match=r"data.train_size must be at least 1, got 0"):
        DataConfig(train_size=0)
    with pytest.raises(ValueError, match=r"data.size must be up to three .*, got \(0,\)"):
        DataConfig(size=(0,))
    with pytest.raises(ValueError, match=r"data.channels must be 1 or 3, got 2"):
        DataConfig(channels=2)
