"""Configurations: every field documented, unknown ones refused with the one that was meant."""

import contextlib
from pathlib import Path

import pytest

from vqtrain.cli import main
from vqtrain.config import RunConfig, parse, save
from vqtrain.config.fields import explanations, fields, nearest


def test_every_field_is_documented() -> None:
    assert all(fields(RunConfig).values())
    assert len(fields(RunConfig)) > 100


def test_an_inherited_field_keeps_its_documentation() -> None:
    tokenizer = explanations(type(RunConfig().tokenizer))
    assert tokenizer["steps"] == "optimiser steps."
    assert "kind" in tokenizer


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("prior.pixelcnn.widht", ["prior.pixelcnn.width"]),
        ("tokeniser.steps", ["tokenizer.steps"]),
        ("stepz", ["tokenizer.steps", "prior.steps", "lower_prior.steps"]),
        ("zzzzzzzzzz", []),
    ],
)
def test_the_field_that_was_meant_is_found(typed: str, meant: list[str]) -> None:
    assert nearest(typed, list(fields(RunConfig))) == meant


def test_a_field_looked_for_one_level_too_high_is_found_below() -> None:
    found = nearest("prior.width", list(fields(RunConfig)))
    assert "prior.pixelcnn.width" in found
    assert all(name.startswith("prior.") and name.endswith(".width") for name in found)


@pytest.mark.parametrize("form", [["--prior.pixelcnn.widht", "3"], ["--prior.pixelcnn.widht=3"]])
def test_an_unknown_option_is_refused_with_the_nearest(
    form: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["run", "digits", *form])
    assert error.value.code == 2
    expected = "--prior.pixelcnn.widht is not a field, did you mean --prior.pixelcnn.width?"
    assert expected in capsys.readouterr().err


def test_an_unknown_key_in_a_file_is_refused_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prior:\n  pixelcnn:\n    widht: 8\n")
    with pytest.raises(SystemExit) as error:
        main(["run", str(path)])
    assert error.value.code == 2
    text = capsys.readouterr().err
    assert "prior.pixelcnn.widht is not a field, did you mean prior.pixelcnn.width?" in text
    assert str(path) in text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prior: [", "mine.yaml must be YAML, got"),
        ("- a\n- b\n", "mine.yaml must map names of sections to their fields, got ['a', 'b']"),
        ("tokenizer:\n  steps: many\n", "tokenizer.steps"),
        ("tokenizer:\n  steps: 0\n", "steps must be at least 1, got 0"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_without_a_traceback(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with contextlib.suppress(SystemExit):
        assert main(["run", str(path)]) == 1
    assert complaint in capsys.readouterr().err


def test_the_lower_prior_can_be_set_on_the_command_line() -> None:
    config, _ = parse(["digits", "--lower_prior.pixelcnn.width", "24"], "run")
    assert config.lower_prior is not None
    assert config.lower_prior.pixelcnn.width == 24


def test_the_source_may_follow_options(tmp_path: Path) -> None:
    earlier, _ = parse(["tones-1d"], "run")
    save(earlier, tmp_path)
    for argv in (
        ["--out", str(tmp_path), "--seed=3", "digits"],
        ["--seed", "3", "digits", "--out", str(tmp_path)],
    ):
        config, out = parse(argv, "run")
        assert (config.data.name, config.seed, out) == ("digits", 3, tmp_path)


def test_help_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["run", "digits", "--help"])
    assert error.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in fields(RunConfig):
        if not name.startswith("lower_prior."):
            assert f"--{name} " in text
    assert fields(RunConfig)["prior.pixelcnn.width"] in text
    assert "<class" not in text
