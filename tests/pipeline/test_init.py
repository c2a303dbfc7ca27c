"""`vqk init`: a preset written out in full, explained, and worth exactly the preset."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from vqtrain.cli import main
from vqtrain.config import RunConfig, locate, presets, read
from vqtrain.config.fields import fields
from vqtrain.init import Comments, read_comments, write_commented


@pytest.mark.parametrize("preset", presets())
def test_what_init_writes_is_the_preset(preset: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    assert main(["init", preset, "--out", str(mine)]) == 0
    assert read(mine) == read(locate(preset).config)


@pytest.mark.parametrize("preset", presets())
def test_every_comment_of_a_preset_is_kept(preset: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    main(["init", preset, "--out", str(mine)])
    written = mine.read_text()
    remarks = [
        line.partition("# ")[2]
        for line in locate(preset).config.read_text().splitlines()
        if "# " in line
    ]
    assert remarks, "a preset says why"
    for remark in remarks:
        assert remark in written


def test_every_field_of_the_chosen_models_is_there_with_its_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["init", "digits"]) == 0
    text = capsys.readouterr().out
    tree = yaml.safe_load(text)
    assert set(tree["tokenizer"]["vqvae"]) == {
        f.name for f in dataclasses.fields(type(RunConfig().tokenizer.vqvae))
    }
    assert "gpt" not in tree["prior"]
    flat = " ".join(text.replace("#", " ").split())
    for name in ("seed", "prior.pixelcnn.width", "tokenizer.learning_rate"):
        assert fields(RunConfig)[name] in flat
    assert "One of auto, cpu, cuda." in flat


def test_a_model_that_is_not_chosen_but_set_is_kept(tmp_path: Path) -> None:
    source, mine = tmp_path / "source.yaml", tmp_path / "mine.yaml"
    source.write_text("prior:\n  kind: pixelcnn\n  gpt:\n    width: 24\n")
    main(["init", str(source), "--out", str(mine)])
    assert read(mine) == read(source)
    assert read(mine).prior.gpt.width == 24


def test_comments_are_found_above_and_behind_keys() -> None:
    header, found = read_comments(
        "# About all.\n# More.\n\nseed: 1\ndata:  # D\n  # N1\n  # N2\n  name: '#x'  # N3\n"
    )
    assert header == ["# About all.", "# More."]
    assert found == {
        "seed": Comments([], ""),
        "data": Comments([], "# D"),
        "data.name": Comments(["# N1", "# N2"], "# N3"),
    }


def test_numbers_that_yaml_reads_as_text_come_back_as_numbers(tmp_path: Path) -> None:
    small = dataclasses.replace(RunConfig().tokenizer, learning_rate=1e-7)
    config = dataclasses.replace(RunConfig(), tokenizer=small)
    mine = tmp_path / "mine.yaml"
    mine.write_text(write_commented(config, {}, []))
    assert read(mine) == config


def test_init_does_not_replace_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("seed: 3\n")
    assert main(["init", "digits", "--out", str(mine)]) == 1
    assert "must not exist yet" in capsys.readouterr().err
    assert mine.read_text() == "seed: 3\n"
