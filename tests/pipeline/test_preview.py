"""`vqk data`: which data there is and what it looks like."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain.cli import main
from vqtrain.data import BUNDLED, DataConfig, load_dataset


def test_list_describes_every_bundled_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(BUNDLED)]] == list(BUNDLED)
    digits = lines[list(BUNDLED).index("digits")]
    assert "8x8, 1 channel, 17 levels, 10 classes; 1237 train, 200 validation, 360 test" in digits
    assert "folder:DIR" in lines[-1]


@pytest.mark.parametrize("name", ["digits", "tones", "moving-digits", "photos"])
def test_a_preview_is_a_picture_of_the_items(name: str, tmp_path: Path) -> None:
    path = tmp_path / "look.png"
    assert main(["data", "preview", name, "--out", str(path)]) == 0
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(pixels.shape) > 200
    assert (pixels < 200).mean() > 0.01, "a blank page shows nothing"


def test_a_field_of_the_data_can_be_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "look.png"
    assert main(["data", "preview", "photos", "--size", "[16,24]", "--out", str(path)]) == 0
    assert "16x24, 3 channels" in capsys.readouterr().out
    items = load_dataset(DataConfig(name="photos", size=(16, 24)), 0).clean_train(4)
    assert items.x.shape == (4, 3, 16, 24)
    assert items.x.dtype == torch.uint8


def test_an_unknown_data_set_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "preview", "digitz"]) == 1
    assert "got 'digitz'" in capsys.readouterr().err
