"""Photographs: bundled, cut into patches, and split by picture."""

import pytest
import torch

from vqtrain.data import DataConfig, load_dataset, photos
from vqtrain.data.photo_crops import TEST, TRAIN, VALIDATION, recoloured

CONFIG = DataConfig(name="photos", train_size=36)


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


def places_of(crop: torch.Tensor, picture: torch.Tensor) -> int:
    """How often a crop occurs in a picture."""
    windows = picture.unfold(1, crop.shape[1], 1).unfold(2, crop.shape[2], 1)
    corner = (windows[:, :, :, 0, 0] == crop[:, None, None, 0, 0]).all(0)
    return int((windows[:, corner] == crop[:, None]).all(-1).all(-1).all(0).sum())


def pixels(number: int) -> torch.Tensor:
    name = photos.NAMES[number]
    return (photos.load([name])[name] * 255).round().to(torch.uint8).permute(2, 0, 1)


def test_no_picture_is_in_two_splits_and_rows_name_the_picture() -> None:
    data = load_dataset(CONFIG, seed=0)
    rows = {"train": data.clean_train().rows, "test": data.test.rows}
    rows["validation"] = data.validation.rows
    names = {split: {photos.NAMES[row] for row in got.tolist()} for split, got in rows.items()}
    assert names == {"train": set(TRAIN), "validation": set(VALIDATION), "test": set(TEST)}
    assert not set(TRAIN) & set(TEST + VALIDATION)
    assert places_of(data.test.x[300], pixels(int(data.test.rows[300]))) == 1


def test_held_out_crops_are_disjoint_and_cover_each_picture() -> None:
    test = load_dataset(CONFIG, seed=0).test
    chelsea = photos.NAMES.index("chelsea")
    crops, picture = test.x[test.rows == chelsea], pixels(chelsea)
    rows, columns = picture.shape[1] // 32, picture.shape[2] // 32
    tiled = crops.view(rows, columns, 3, 32, 32).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    assert torch.equal(tiled, picture[:, : rows * 32, : columns * 32])


def test_draw_0_is_a_plain_crop_and_other_draws_are_other_crops() -> None:
    train = load_dataset(CONFIG, seed=0).train
    rows = torch.arange(8)
    plain = train.batch(rows, torch.zeros_like(rows))
    astronaut = plain.rows.tolist().index(photos.NAMES.index("astronaut"))
    assert places_of(plain.x[astronaut], pixels(int(plain.rows[astronaut]))) >= 1
    later = [train.batch(rows, torch.full_like(rows, draw)).x for draw in (1, 1, 2)]
    assert torch.equal(later[0], later[1])
    assert bool((later[0] != later[2]).flatten(1).any(1).all())
    other_seed = load_dataset(CONFIG, seed=1).train.batch(rows, torch.zeros_like(rows))
    assert bool((other_seed.x != plain.x).flatten(1).any(1).all())


def test_augmentation_can_be_declined() -> None:
    train = load_dataset(DataConfig(name="photos", train_size=4, augment=False), seed=0).train
    rows = torch.arange(4).repeat(3)
    batch = train.batch(rows, torch.arange(1, 4).repeat_interleave(4))
    for crop, row in zip(batch.x[2::4], batch.rows[2::4].tolist(), strict=True):
        assert places_of(crop, pixels(row)) >= 1


def test_recolouring_keeps_forms_and_changes_colours() -> None:
    x = load_dataset(CONFIG, seed=0).test.x[::50]
    u = torch.rand(len(x), 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u[:, 0] = 0  # channels stay where they are
    got = recoloured(x, u)
    assert got.dtype == torch.uint8
    # A map of each channel that never decreases: order of brightness within a channel is kept.
    for before, after in zip(
        x.flatten(2).flatten(0, 1), got.flatten(2).flatten(0, 1), strict=True
    ):
        order = before.argsort()
        assert bool((after[order].diff() >= 0)[before[order].diff() > 0].all())
    assert (got.float() - x.float()).abs().mean() > 10


def test_other_sizes_of_crops() -> None:
    data = load_dataset(DataConfig(name="photos", size=(64, 48), train_size=2), seed=0)
    assert data.signal.size == (64, 48)
    assert data.test.x.shape[1:] == data.clean_train().x.shape[1:] == (3, 64, 48)
    with pytest.raises(ValueError, match=r"data.size must be two lengths for photos, got \(64,\)"):
        load_dataset(DataConfig(name="photos", size=(64,)), seed=0)
    with pytest.raises(ValueError, match=r"data.size must be at most \(300, 451\), the size of"):
        load_dataset(DataConfig(name="photos", size=(301, 64)), seed=0)
