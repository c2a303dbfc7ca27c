"""What a stage leaves beside its results: seconds, inputs, and the environment it ran in."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

import vqkernels as vq
from vqtrain.config import RunConfig
from vqtrain.files import temporary_name
from vqtrain.runtime import finished_before, fresh, keep_inputs, stage, stage_seconds, start


def test_a_stage_keeps_its_seconds_and_those_of_interrupted_processes(tmp_path: Path) -> None:
    with stage("one", tmp_path) as note:
        note["seconds_before"] = 100.0
    with stage("two", tmp_path):
        pass
    seconds = stage_seconds(tmp_path)
    assert 100 <= seconds["one"] < 110
    assert seconds["two"] < 10


def test_a_stage_is_fresh_for_the_inputs_of_its_last_making_alone(tmp_path: Path) -> None:
    inputs = {"settings": {"seed": 0}, "models": {"tokenizer": "abc"}}
    assert not fresh("sample", tmp_path, inputs)
    with stage("sample", tmp_path):
        pass
    assert not fresh("sample", tmp_path, inputs)
    keep_inputs("sample", tmp_path, inputs)
    assert fresh("sample", tmp_path, dict(reversed(inputs.items())))
    assert not fresh("sample", tmp_path, {**inputs, "models": {"tokenizer": "abd"}})
    with stage("sample", tmp_path):  # by itself, with whatever settings
        pass
    assert not fresh("sample", tmp_path, inputs)


def test_a_training_whose_process_died_before_its_seconds_were_kept_gets_them_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_before("train tokenizer", tmp_path, "kept step 5", 30.0)
    assert 30 <= stage_seconds(tmp_path)["train tokenizer"] < 40
    finished_before("train tokenizer", tmp_path, "kept step 5", 30.0)
    assert capsys.readouterr().out.endswith("[train tokenizer] was finished before: kept step 5\n")


def test_the_environment_names_versions_commit_machine_and_backends(tmp_path: Path) -> None:
    with stage("one", tmp_path):
        pass
    written = json.loads((tmp_path / "env.json").read_text())
    assert written["vqkernels"] == vq.__version__
    assert written["packages"]["torch"] == torch.__version__
    assert written["backends"]["nearest_code"] == "native"
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if head.returncode == 0:
        assert head.stdout.startswith(written["commit"].removesuffix("+"))


def test_a_stage_removes_what_a_dead_process_left_and_nothing_else(tmp_path: Path) -> None:
    mine = temporary_name(tmp_path / "a.json")
    dead = mine.with_name(mine.name.rpartition("-")[0] + "-999999999.tmp")
    for path in (mine, dead):
        path.write_text("half")
    with stage("one", tmp_path):
        assert mine.is_file()
        assert not dead.is_file()


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be no or bf16 on a CPU, got 'fp16'"):
        start(RunConfig(device="cpu", precision="fp16"))
