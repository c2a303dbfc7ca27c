"""Adapters: real files of every kind become items, and what does not fit is refused by name."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vqtrain.data import DataConfig, Dataset, load_dataset
from vqtrain.data.adapters.source import hashed_split
from vqtrain.data.sound import from_mu_law

SPLITS = ("train", "validation", "test")


def load(name: str, **fields: Any) -> Dataset:
    return load_dataset(DataConfig(name=name, **{"held_out_share": 0.2, **fields}), seed=0)


def everything(data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Items, labels and rows of all splits, draw 0."""
    parts = (data.clean_train(), data.validation, data.test)
    x, labels, rows = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return x, labels, rows


def gradient(height: int, width: int, shade: int) -> Image.Image:
    """Red grows to the right, green downwards; blue tells pictures apart."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, :, 0] = np.linspace(0, 255, width)[None]
    pixels[:, :, 1] = np.linspace(0, 255, height)[:, None]
    pixels[:, :, 2] = shade
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of twenty pictures of mixed sizes and kinds."""
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / name / "deeper").mkdir(parents=True)
        for number in range(20):
            picture = gradient(20 + number, 40 - number, 100 * label + number)
            suffix = ("png", "JPG", "bmp")[number % 3]
            where = tmp_path / name / ("deeper" if number % 2 else "")
            picture.save(where / f"{number:02d}.{suffix}")
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    return tmp_path


def test_a_folder_of_pictures_has_classes_and_three_splits(folder: Path) -> None:
    data = load(f"folder:{folder}", size=(16, 12))
    assert data.class_names == ("cat", "dog")
    assert (data.signal.size, data.signal.channels, data.signal.num_labels) == ((16, 12), 3, 2)
    x, labels, rows = everything(data)
    assert sorted(rows.tolist()) == list(range(40))
    assert torch.equal(labels, rows // 20)
    shade = x[:, 2].float().mean((1, 2))
    assert bool((shade < 25).eq(labels == 0).all())
    assert min(data.train.size, len(data.validation.x), len(data.test.x)) >= 2


def test_links_to_folders_are_followed_and_may_go_round(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    linked = tmp_path_factory.mktemp("linked")
    for name in ("cat", "dog"):
        (linked / name).symlink_to(folder / name)
    (folder / "cat" / "again").symlink_to(folder / "cat")
    direct, through = (load(f"folder:{root}", size=(16, 12)) for root in (folder, linked))
    assert through.class_names == ("cat", "dog")
    assert torch.equal(everything(through)[0], everything(direct)[0])


def test_draw_0_is_the_middle_in_the_pictures_own_proportions(folder: Path) -> None:
    x, _, rows = everything(load(f"folder:{folder}", size=(16, 16)))
    picture = x[rows.tolist().index(0)].float()  # 20 high and 40 wide: the middle half is seen
    assert picture[0].mean(0)[[0, -1]].tolist() == pytest.approx([255 * 0.26, 255 * 0.74], abs=9)
    assert picture[1].mean(1)[[0, -1]].tolist() == pytest.approx([255 * 0.02, 255 * 0.98], abs=9)


def test_other_draws_are_other_crops_and_some_are_mirrored(folder: Path) -> None:
    data = load(f"folder:{folder}", size=(16, 16))
    train = data.train
    assert train.draws is None
    rows = data.clean_train().rows.argmin().expand(32)  # a wide picture
    drawn = train.batch(rows, torch.arange(1, 33))
    again = train.batch(rows[:5], torch.arange(1, 33).flip(0)[:5])
    assert torch.equal(again.x, drawn.x.flip(0)[:5])
    assert len(drawn.x.flatten(1).unique(dim=0)) > 25
    to_the_right = drawn.x[:, 0, :, -1].float().mean(1) > drawn.x[:, 0, :, 0].float().mean(1)
    assert 8 <= to_the_right.sum() <= 24
    plain = load(f"folder:{folder}", size=(16, 16), augment=False).train
    assert plain.draws == 1


def test_grey_and_16_bit_pictures_become_levels(tmp_path: Path) -> None:
    for number in range(30):
        deep = np.full((9, 9), 256 * 200, dtype=np.uint16)
        Image.fromarray(deep).save(tmp_path / f"{number}.png")
    data = load(f"folder:{tmp_path}", size=(8, 8), channels=1)
    assert data.class_names == ("item",)
    assert data.signal.num_labels == 1
    assert bool((everything(data)[0] == 200).all())


def test_new_files_leave_old_ones_in_their_splits(folder: Path) -> None:
    def places() -> dict[str, int]:
        found = {}
        data = load(f"folder:{folder}", size=(4, 4), augment=False)
        for split, part in enumerate((data.clean_train(), data.validation, data.test)):
            for picture in part.x:
                found[str(picture[2].float().mean().round().item())] = split
        return found

    before = places()
    for number in range(20, 40):
        gradient(20, 20, 200 + number).save(folder / "cat" / f"{number}.png")
    after = places()
    assert len(after) > len(before)
    assert {shade: after[shade] for shade in before} == before


def test_folders_of_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    for split, count in (("train", 30), ("test", 3)):
        (tmp_path / split / "a").mkdir(parents=True)
        for number in range(count):
            gradient(8, 8, number).save(tmp_path / split / "a" / f"{number}.png")
    data = load(f"folder:{tmp_path}", size=(8, 8))
    assert data.class_names == ("a",)
    assert len(data.test.x) == 3
    assert data.train.size + len(data.validation.x) == 30
    assert len(data.validation.x) > 0
    (tmp_path / "extra").mkdir()
    gradient(8, 8, 0).save(tmp_path / "extra" / "0.png")
    with pytest.raises(ValueError, match=r"must hold nothing beside its splits.*got 'extra'"):
        load(f"folder:{tmp_path}", size=(8, 8))


def test_held_out_items_can_be_limited_and_still_show_every_class(folder: Path) -> None:
    every = load(f"folder:{folder}", size=(8, 8), held_out_share=0.4)
    few = load(f"folder:{folder}", size=(8, 8), held_out_share=0.4, held_out_limit=4)
    assert torch.equal(few.clean_train().rows, every.clean_train().rows)
    for some, split in ((few.validation, every.validation), (few.test, every.test)):
        assert len(some.x) == 4
        assert set(some.rows.tolist()) < set(split.rows.tolist())
        assert set(some.labels.tolist()) == {0, 1}


def test_the_first_training_items_of_a_sorted_set_are_of_every_class(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array(400, 4, 4))
    np.save(tmp_path / "x-labels.npy", np.arange(400) // 100)
    data = load(f"npy:{tmp_path / 'x.npy'}", levels=17)
    assert set(data.clean_train(40).labels.tolist()) == {0, 1, 2, 3}


def test_what_is_not_a_folder_of_pictures_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match=r"must name a folder, got folder:/nowhere"):
        load("folder:/nowhere", size=(8, 8))
    with pytest.raises(ValueError, match=r"data.size must be two lengths .*, got \(\)"):
        load(f"folder:{folder}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty must hold files .bmp, .*, got none"):
        load(f"folder:{tmp_path / 'empty'}", size=(8, 8))
    gradient(8, 8, 0).save(tmp_path / "empty" / "only.png")
    with pytest.raises(ValueError, match=r"must have items in every split, got \{'train': "):
        load(f"folder:{tmp_path / 'empty'}", size=(8, 8))
    whole = (folder / "cat" / "00.png").read_bytes()
    (folder / "cat" / "00.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"00.png must be a picture, got: "):
        everything(load(f"folder:{folder}", size=(8, 8)))


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Two voices of fifteen stereo files, at 8 and at 16 kHz."""
    import soundfile

    for label, (name, pitch) in enumerate((("high", 800), ("low", 200))):
        (tmp_path / name).mkdir()
        for number in range(15):
            rate = (8000, 16000)[number % 2]
            wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(rate // 4) / rate)
            path = tmp_path / name / f"{number}.{('wav', 'flac')[label]}"
            soundfile.write(path, np.stack((wave, 0.5 * wave), axis=1), rate)
    return tmp_path


def test_a_folder_of_sounds_is_resampled_and_companded(sounds: Path) -> None:
    data = load(f"folder:{sounds}", size=(1024,), sample_rate=8000)
    assert (data.class_names, data.signal.size) == (("high", "low"), (1024,))
    x, labels, _ = everything(data)
    wave = from_mu_law(x[:, 0])
    assert wave.amax(1).tolist() == pytest.approx([0.375] * 30, abs=0.03)  # mean of the channels
    peaks = torch.fft.rfft(wave).abs().argmax(1) * 8000 / 1024
    expected = torch.tensor([800.0, 200.0])[labels]
    assert (peaks - expected).abs().max() < 8
    drawn = data.train.batch(torch.zeros(20, dtype=torch.int64), torch.arange(20)).x
    assert len(drawn.flatten(1).unique(dim=0)) >= 5  # of the ten or forty phases of a sine


def test_short_sounds_get_silence_on_both_sides(sounds: Path) -> None:
    x, _, _ = everything(load(f"folder:{sounds}", size=(4000,), sample_rate=8000))
    silence = from_mu_law(torch.tensor(128)).item()
    assert abs(silence) < 1e-3
    assert bool((x[:, :, :900] == 128).all())
    assert bool((x[:, :, -900:] == 128).all())
    assert bool((x[:, :, 1100:2900] != 128).any(-1).all())


def test_a_damaged_sound_and_a_missing_soundfile_are_named(
    sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sounds / "low" / "3.flac").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"3.flac must be a sound file, got: "):
        everything(load(f"folder:{sounds}", size=(64,)))
    monkeypatch.setitem(sys.modules, "soundfile", None)  # what an absent module looks like
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vqkernels\[audio\]'"):
        load(f"folder:{sounds}", size=(64,))


def array(*shape: int, levels: int = 17) -> np.ndarray:
    return np.random.default_rng(0).integers(0, levels, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("shape", "size", "channels"),
    [
        ((50, 3, 6, 5), (), 3),
        ((50, 6, 5), (), 1),
        ((50, 40), (), 1),
        ((50, 1, 40), (), 1),
        ((50, 2, 4, 6, 6), (4, 6, 6), 2),
        ((50, 3, 6), (3, 6), 1),
        ((50, 4, 6, 6), (4, 6, 6), 1),
    ],
)
def test_arrays_with_and_without_channels(
    tmp_path: Path, shape: tuple[int, ...], size: tuple[int, ...], channels: int
) -> None:
    content = array(*shape)
    np.save(tmp_path / "x.npy", content)
    np.save(tmp_path / "x-labels.npy", np.arange(50, dtype=np.int32) % 4)
    data = load(f"npy:{tmp_path / 'x.npy'}", size=size, levels=17)
    x, labels, rows = everything(data)
    assert torch.equal(x[rows.argsort()].view(50, -1), torch.from_numpy(content).view(50, -1))
    assert torch.equal(labels, rows % 4)
    assert data.signal.channels == channels
    assert data.signal.levels == 17
    data.signal.check(data.test.x)
    assert data.class_names == ("0", "1", "2", "3")
    assert data.train.draws == 1


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    name = f"npy:{path}"
    with pytest.raises(FileNotFoundError, match=r"data.name must name a file, got npy:"):
        load(name)
    np.save(path, np.zeros((30, 4, 4), dtype=np.float32))
    with pytest.raises(ValueError, match=r"x.npy must be uint8, got float32"):
        load(name)
    np.save(path, array(30, 3, 4, 4))
    with pytest.raises(ValueError, match=r"must have shape \(N, C, 8, 8\) or \(N, 8, 8\), got"):
        load(name, size=(8, 8))
    with pytest.raises(ValueError, match=r"must hold levels below data.levels 8, got 16"):
        load(name, levels=8)
    np.save(tmp_path / "x-labels.npy", np.zeros(29, dtype=np.int64))
    with pytest.raises(ValueError, match=r"x-labels.npy must hold 30 integers from 0 on, got int"):
        load(name)
    np.save(tmp_path / "x-labels.npy", np.array(["cat"] * 30, dtype=object), allow_pickle=True)
    with pytest.raises(
        ValueError, match=r"x-labels.npy must be a file of numbers, got: .*objects"
    ):
        load(name)
    np.savez(tmp_path / "x.npz", images=array(30, 4, 4))
    with pytest.raises(ValueError, match=r"x.npz must be a file of one array, got .*'images'"):
        load(f"npy:{tmp_path / 'x.npz'}")
    np.save(path, np.array([{}]), allow_pickle=True)
    with pytest.raises(
        ValueError, match=r"x.npy must be a file of numbers, got: .*Python objects"
    ):
        load(name)


def hub_parts(label: bool = True) -> Callable[[int], Any]:
    import datasets  # type: ignore[import-untyped]

    def part(count: int) -> Any:
        columns: dict[str, Any] = {
            "number": list(range(count)),
            "img": [gradient(10, 14, number % 200) for number in range(count)],
        }
        features = {"number": datasets.Value("int32"), "img": datasets.Image()}
        if label:
            columns["kind"] = [number % 2 for number in range(count)]
            features["kind"] = datasets.ClassLabel(names=["even", "odd"])
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    return part


def test_a_data_set_on_disk_is_read_with_its_splits_and_classes(tmp_path: Path) -> None:
    import datasets

    part = hub_parts()
    datasets.DatasetDict({"train": part(40), "test": part(6)}).save_to_disk(str(tmp_path))
    data = load(f"hf:{tmp_path}", size=(8, 8))
    assert data.class_names == ("even", "odd")
    assert data.test.labels.tolist() == [0, 1] * 3
    assert (data.test.x[:, 2].float().mean((1, 2)) - torch.arange(6)).abs().max() < 1
    assert data.train.size + len(data.validation.x) == 40
    clean = data.clean_train()
    assert torch.equal(clean.labels, clean.rows % 2)


def test_one_part_without_labels_is_split_by_row(tmp_path: Path) -> None:
    hub_parts(label=False)(50).save_to_disk(str(tmp_path))
    data = load(f"hf:{tmp_path}", size=(8, 8), channels=1)
    assert data.class_names == ("item",)
    assert sorted(everything(data)[2].tolist()) == list(range(50))


def test_a_test_split_without_labels_is_cut_from_the_training_items(tmp_path: Path) -> None:
    import datasets

    part = hub_parts()
    hidden = part(5).map(lambda row: {"kind": -1})
    datasets.DatasetDict({"train": part(40), "test": hidden}).save_to_disk(str(tmp_path))
    data = load(f"hf:{tmp_path}", size=(8, 8))
    assert sorted(everything(data)[2].tolist()) == list(range(40))
    assert bool((everything(data)[1] >= 0).all())


def test_data_sets_without_pictures_and_a_missing_library_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": ["a"] * 9}).save_to_disk(str(tmp_path))
    with pytest.raises(ValueError, match=r"must have a column of pictures, got \{'text': 'Value'"):
        load(f"hf:{tmp_path}", size=(8, 8))
    with pytest.raises(ValueError, match=r"data.size must be two lengths for hf:.*, got \(\)"):
        load(f"hf:{tmp_path}")
    monkeypatch.setitem(sys.modules, "datasets", None)  # what an absent module looks like
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vqkernels\[hub\]'"):
        load(f"hf:{tmp_path}", size=(8, 8))


def test_a_hash_gives_each_held_out_split_its_share() -> None:
    found = [hashed_split(f"a/{n}.png", SPLITS[1:], 0.1) for n in range(4000)]
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert found.count(split) / 4000 == pytest.approx(share, abs=0.02)
