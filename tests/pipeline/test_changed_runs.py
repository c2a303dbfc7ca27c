"""A run folder that is used again with another configuration: nothing old is taken for new."""

from pathlib import Path

import numpy as np
import pytest

from vqtrain.cli import main
from vqtrain.files import read_json

SMALL = [
    *("--threads=1", "--device=cpu", "--data.warped_copies=1"),
    *("--tokenizer.steps=1", "--tokenizer.vqvae.hidden=4", "--tokenizer.vqvae.residual_hidden=4"),
    *("--prior.steps=1", "--prior.pixelcnn.width=4", "--prior.pixelcnn.layers=1"),
]


def made(command: str, run: Path, *options: str) -> int:
    return main([*command.split(), "digits", "--out", str(run), *SMALL, *options])


def test_a_tokenizer_without_training_leaves_nothing_of_a_trained_one(tmp_path: Path) -> None:
    assert made("train tokenizer", tmp_path) == 0
    identity = "--tokenizer.kind=identity"
    assert made("train tokenizer", tmp_path, identity) == 1  # other settings are refused
    assert made("train tokenizer", tmp_path, identity, "--resume=never") == 0
    names = sorted(path.name for path in (tmp_path / "tokenizer").iterdir())
    assert names == ["config.json", "model.safetensors"]
    assert made("train tokenizer", tmp_path, identity) == 0
    assert made("train tokenizer", tmp_path) == 0
    assert read_json(tmp_path / "tokenizer" / "config.json", "-")["kind"] == "VQVAE"


def test_a_prior_trained_on_other_draws_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made("train tokenizer", tmp_path) == 0
    assert made("extract", tmp_path) == 0
    assert made("train prior", tmp_path) == 0
    assert made("train prior", tmp_path) == 0  # finished before
    assert made("extract", tmp_path, "--extract.draws=1") == 0
    assert made("train prior", tmp_path) == 1
    assert "extract.draws must be 2, with which" in capsys.readouterr().err
    assert made("train prior", tmp_path, "--resume=never") == 0


def test_data_that_has_got_a_class_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "x.npy"
    np.save(data, np.zeros((60, 4, 4), dtype=np.uint8))
    np.save(tmp_path / "x-labels.npy", np.arange(60) % 2)
    options = (f"--data.name=npy:{data}", "--data.warped_copies=0", "--tokenizer.kind=identity")
    assert made("train tokenizer", tmp_path / "run", *options) == 0
    np.save(tmp_path / "x-labels.npy", np.arange(60) % 3)
    assert made("extract", tmp_path / "run", *options) == 1
    assert "num_labels=2), on which the tokenizer was trained, got" in capsys.readouterr().err


def test_a_training_that_cannot_begin_leaves_the_configuration_as_it_was(tmp_path: Path) -> None:
    assert made("train tokenizer", tmp_path) == 0
    before = (tmp_path / "config.yaml").read_text()
    assert made("train tokenizer", tmp_path, "--data.name=folder:nowhere", "--resume=never") == 1
    assert (tmp_path / "config.yaml").read_text() == before
