"""Pictures: pixels where they belong, and a sheet of every kind of signal."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain import pictures
from vqtrain.exhibits import COLUMNS, pairs_of_a_class, reconstruction_rows
from vqtrain.metrics.usage import code_usage
from vqtrain.pictures import sheets
from vqtrain.pictures.tiles import envelope, filmstrip, montage


def test_a_montage_has_every_image_in_its_place_and_white_between() -> None:
    images = torch.arange(6).view(2, 3, 1, 1, 1).expand(2, 3, 3, 2, 4).clone() * 40
    page = montage(images, levels=256)
    assert page.shape == (2 * 3 - 1, 3 * 5 - 1, 3)
    for row in range(2):
        for column in range(3):
            block = page[row * 3 : row * 3 + 2, column * 5 : column * 5 + 4]
            assert np.allclose(block, (row * 3 + column) * 40 / 255)
    assert np.all(page[2] == 1)
    assert np.all(page[:, 4] == 1)


def test_few_levels_are_ink_and_256_levels_are_light() -> None:
    high = torch.full((1, 1, 1, 2, 2), 16)
    assert np.all(montage(high, levels=17) == 0)
    assert np.allclose(montage(high, levels=256), 16 / 255)
    colour = torch.tensor([255, 0, 0]).view(1, 1, 3, 1, 1)
    assert montage(colour, levels=256)[0, 0].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="must have 1 or 3 channels, got 2"):
        montage(torch.zeros(1, 1, 2, 2, 2), levels=256)


def test_a_filmstrip_shows_frames_from_left_to_right() -> None:
    video = torch.arange(3).view(3, 1, 1).expand(1, 3, 2, 4)  # C, T, H, W
    strip = filmstrip(video)
    assert strip.shape == (1, 2, 3 * 5 - 1)
    assert strip[0, 0, :4].tolist() == [0] * 4
    assert strip[0, 1, 10:].tolist() == [2] * 4
    assert strip[0, 0, 4].isnan()


def test_an_envelope_keeps_peaks_however_narrow() -> None:
    sound = torch.full((100,), 128)
    sound[37] = 255
    low, high = envelope(sound, levels=256, columns=10)
    assert high.argmax() == 3
    assert high[3] == 1
    assert low[3] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("size", [(512,), (12, 8), (4, 8, 8)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_kind_of_signal_has_a_sheet(
    tmp_path: Path, size: tuple[int, ...], channels: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(256, (3, 5, channels, *size), generator=generator)
    path = tmp_path / "sheet.png"
    pictures.sample_sheet(path, items.float(), items, ["a", "b", "c"], 256, 1.0)
    pixels = np.asarray(Image.open(path).convert("L"))
    assert pixels.shape[1] > 1000
    # Something is drawn in each half, that is, in each of the two panels.
    for half in np.array_split(pixels, 2, axis=1):
        assert (half < 200).mean() > 0.01


def test_samples_without_classes_fill_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "sheet", lambda _, panels, *__, **___: drawn.extend(panels))
    drawn: list[pictures.Panel] = []
    items = torch.arange(20).view(1, 20, 1, 1, 1)
    pictures.sample_sheet(tmp_path / "s.png", items.float(), None, ["photo"], 256, 1.0)
    (panel,) = drawn
    assert panel.items.flatten(1).tolist() == [[6 * r + c for c in range(6)] for r in range(3)]
    assert panel.row_names == ["", "", ""]


def test_charts_take_one_code_and_thousands(tmp_path: Path) -> None:
    for k in (1, 8, 4096):
        codes = torch.randint(k, (500,), generator=torch.Generator().manual_seed(0))
        path = tmp_path / f"{k}.png"
        pictures.usage_chart(path, code_usage(codes, k))
        assert Image.open(path).size == (910, 416)


def test_a_comparison_of_models_is_drawn_with_and_without_errors(tmp_path: Path) -> None:
    points = [
        pictures.Point("K 8", "4x4", 1.0, 20.0, 0.1, 0.2),
        pictures.Point("K 16", "4x4", 1.4, 22.0),
        pictures.Point("K 8", "2x2", 0.5, 17.0),
    ]
    pictures.rate_distortion(tmp_path / "rate.png", points, "bits/dim", "Title")
    bars = [pictures.Bits("K 8", 1.4, 0.5, 0.02), pictures.Bits("pixels", 0.0, 1.7)]
    pictures.bits_chart(tmp_path / "bits.png", bars, "Title", {"ladder": 1.96})
    for name in ("rate", "bits"):
        assert np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")).min() < 100


def test_exhibits_show_each_class_in_turn_and_pairs_of_one_class() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    assert [rows.tolist() for rows in reconstruction_rows(labels)] == [[0, 4, 1, 5], [2, 6, 3, 7]]
    assert [len(rows) for rows in reconstruction_rows(torch.arange(360) % 24)] == [COLUMNS] * 2
    assert [rows.tolist() for rows in reconstruction_rows(torch.tensor([3]))] == [[0]]
    assert [rows.tolist() for rows in reconstruction_rows(torch.arange(3))] == [[0], [1]]
    no_classes = reconstruction_rows(torch.zeros(191))
    assert torch.cat(no_classes).tolist() == list(range(0, 191, 10))
    assert pairs_of_a_class(labels).tolist() == [[0, 1], [4, 5], [2, 3], [6, 7]]
    assert len(pairs_of_a_class(torch.zeros(99))) == 6
    assert pairs_of_a_class(torch.arange(5)).shape == (0, 2)
