"""The digits: committed splits, and flagged warped copies of training images only."""

import pytest
import torch
from sklearn.datasets import load_digits

from vqtrain.data import (
    Split,
    StoredTrainSet,
    TrainSet,
    load_digits_dataset,
)
from vqtrain.data.digits import load_split

SPLITS = ["stratified", "ordered"]


@pytest.mark.parametrize("name", SPLITS)
def test_splits_are_disjoint_and_cover_every_image(name: str) -> None:
    split = load_split(name)
    assert {key: len(rows) for key, rows in split.items()} == {
        "train": 1237,
        "validation": 200,
        "test": 360,
    }
    assert sorted(row for rows in split.values() for row in rows) == list(range(1797))


def test_the_stratified_split_has_the_classes_in_proportion() -> None:
    labels = torch.from_numpy(load_digits().target)
    overall = torch.bincount(labels) / len(labels)
    for rows in load_split("stratified").values():
        counts = torch.bincount(labels[torch.tensor(rows)], minlength=10)
        assert bool(((counts - overall * len(rows)).abs() <= 1.5).all())


def test_the_ordered_split_tests_on_the_last_writers() -> None:
    split = load_split("ordered")
    assert max(split["train"]) < min(split["validation"])
    assert max(split["validation"]) < min(split["test"])


def test_rows_lead_back_to_the_source_images() -> None:
    source = load_digits()
    data = load_digits_dataset()
    for part in (data.clean_train(), data.validation, data.test):
        expected = torch.from_numpy(source.images)[part.rows].to(torch.uint8)
        assert torch.equal(part.x[:, 0], expected)
        assert torch.equal(part.labels, torch.from_numpy(source.target)[part.rows])


def copies(train: TrainSet, first: int) -> Split:
    """All draws of every row from draw `first` on."""
    assert train.draws is not None
    draws = torch.arange(first, train.draws).repeat_interleave(train.size)
    return train.batch(torch.arange(train.size).repeat(train.draws - first), draws)


def test_warped_copies_are_flagged_and_made_of_training_images_only() -> None:
    plain, warped = load_digits_dataset(), load_digits_dataset(warped_copies=3)
    assert (plain.signal.num_labels, warped.signal.num_labels) == (10, 20)
    assert (plain.train.draws, warped.train.draws) == (1, 4)
    for one, other in (
        (plain.validation, warped.validation),
        (plain.test, warped.test),
        (plain.clean_train(), warped.clean_train()),
    ):
        for before, after in zip(one, other, strict=True):
            assert torch.equal(before, after)
    flagged = copies(warped.train, first=1)
    assert len(flagged.x) == 3 * 1237
    assert set(flagged.rows.tolist()) == set(plain.clean_train().rows.tolist())
    target = torch.from_numpy(load_digits().target)
    assert torch.equal(flagged.labels - 10, target[flagged.rows])


def test_warps_change_images_a_little_and_stay_in_range() -> None:
    data = load_digits_dataset(warped_copies=1)
    clean, warped = data.clean_train().x, copies(data.train, first=1).x
    assert warped.max() <= 16
    assert bool((clean != warped).flatten(1).any(1).all())
    # A warped digit is nearer to its source than to another digit, in nearly all cases.
    distances = torch.cdist(warped.flatten(1).float(), clean.flatten(1).float())
    assert (distances.diagonal() < distances.median(1).values).double().mean() > 0.99


def test_warps_are_decided_by_the_seed() -> None:
    first, again, other = (
        copies(load_digits_dataset(warped_copies=1, seed=seed).train, first=1).x
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_items_that_a_training_set_lacks_are_refused() -> None:
    train = load_digits_dataset(warped_copies=2).train
    zero = torch.tensor([0])
    with pytest.raises(ValueError, match="rows must be between 0 and 1236, got 1237"):
        train.batch(torch.tensor([1237]), zero)
    with pytest.raises(ValueError, match="draws must be between 0 and 2, got -1"):
        train.batch(zero, torch.tensor([-1]))
    with pytest.raises(ValueError, match=r"draws must be a divisor .* items 200, got 3"):
        StoredTrainSet(load_digits_dataset().validation, draws=3)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be 'stratified' or 'ordered', got 'random'"):
        load_split("random")
    with pytest.raises(ValueError, match="copies must be at least 0, got -1"):
        load_digits_dataset(warped_copies=-1)
