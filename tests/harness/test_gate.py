"""No speed is shown on red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import code_sampling, gate, peers

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("status", "expected"), [(0, True), (1, False), (2, False), (5, False)])
def test_only_a_green_run_passes(status: int, expected: bool) -> None:
    def run(command: list[str], **options: Any) -> SimpleNamespace:
        return SimpleNamespace(returncode=status)

    assert gate.passes(["nearest_code"], run=run) is expected


def test_on_a_gpu_everything_marked_for_one_runs() -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0)

    assert gate.passes(["nearest_code"], "cuda", run)
    assert commands[0][-3:] == ["-m", "gpu", "tests"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_refused() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "benchmarks"]
    done = subprocess.run(
        [*command, "--device", "cuda", "-k", "1024 and vqkernels"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "--device must be one that is here, got cuda" in done.stdout


def test_every_table_has_tests_and_they_exist() -> None:
    assert gate.TESTS.keys() == {*peers.TABLES, code_sampling.TABLE}
    for tests in gate.TESTS.values():
        for test in tests:
            path, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / path).read_text()


def test_a_red_gate_ends_the_run_before_anything_is_measured(tmp_path: Path) -> None:
    red = tmp_path / "test_red.py"
    red.write_text("def test_red():\n    assert False\n")
    plugin = tmp_path / "red_gate.py"
    plugin.write_text(
        "from benchmarks import gate\n"
        f"gate.TESTS = dict.fromkeys(gate.TESTS, ({str(red)!r},))\n"
        "gate._FLOAT32 = ''\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "red_gate", "benchmarks"]
    done = subprocess.run(
        [*command, "-k", "64 and vqkernels", f"--results={tmp_path / 'results'}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no benchmark is run" in done.stdout
    assert "times ours" not in done.stdout
    assert not (tmp_path / "results").exists()
