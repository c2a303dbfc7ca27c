"""Digits and photos: committed splits, flagged augmentation on train only, patches in order."""

import pytest
import torch
from sklearn.datasets import load_digits

from vqtrain.data import (
    Split,
    StoredTrainSet,
    TrainSet,
    batches,
    load_digits_dataset,
    photos,
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


def test_batches_hold_the_clean_share_and_visit_every_row() -> None:
    clean = torch.arange(60) < 20
    order = batches(clean, 12, 0.25, torch.Generator().manual_seed(0))
    seen = []
    for _ in range(40):
        index = next(order)
        assert clean[index].sum() == 3
        seen += index.tolist()
    assert set(seen) == set(range(60))
    # 120 clean draws over 20 rows, without replacement within an epoch: exactly six of each.
    assert set(torch.bincount(torch.tensor(seen))[:20].tolist()) == {6}


def test_batches_of_clean_data_are_whole() -> None:
    order = batches(torch.ones(10, dtype=torch.bool), 10, 0.5, torch.Generator())
    assert sorted(next(order).tolist()) == list(range(10))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_clean_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=rf"clean_share must be in \(0, 1\], got {share}"):
        next(batches(torch.ones(4, dtype=torch.bool), 2, share, torch.Generator()))


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split must be 'stratified' or 'ordered', got 'random'"):
        load_split("random")
    with pytest.raises(ValueError, match="copies must be at least 0, got -1"):
        load_digits_dataset(warped_copies=-1)


def test_photos_load_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("photos used the network"))
    pictures = photos.load()
    assert set(pictures) == set(photos.NAMES)
    for name, picture in pictures.items():
        assert picture.dtype == torch.float32, name
        assert picture.ndim == 3, name
        assert picture.shape[2] in (1, 3), name
        assert 0 <= picture.min() < 0.5 < picture.max() <= 1, name


@pytest.mark.parametrize("stride", [None, 2])
def test_patches_are_cut_row_by_row_with_channels_last(stride: int | None) -> None:
    image = torch.rand(7, 11, 3)
    got = photos.patches(image, 3, stride)
    step = stride or 3
    expected = [
        image[i : i + 3, j : j + 3].flatten() for i in range(0, 5, step) for j in range(0, 9, step)
    ]
    assert torch.equal(got, torch.stack(expected))
    assert got.is_contiguous()


def test_photo_contracts_are_named() -> None:
    with pytest.raises(ValueError, match=r"names must be among .*, got 'lena'"):
        photos.load(["lena"])
    with pytest.raises(ValueError, match=r"image must have shape \(H, W, C\), got \(4, 4\)"):
        photos.patches(torch.zeros(4, 4), 2)
    with pytest.raises(ValueError, match="size must be between 1 and 4, got 5"):
        photos.patches(torch.zeros(4, 6, 1), 5)
