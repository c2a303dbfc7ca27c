"""Options, the correctness gate, and the file of keyed rows that README tables come from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_GATE = ("tests/ops/test_nearest_code.py",)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the benchmarks: cpu or cuda")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(scope="session", autouse=True)
def _gate() -> None:
    """No speed is printed for an op whose tests fail."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", *_GATE]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        pytest.exit("the op's tests fail: no benchmark is run", returncode=1)


@pytest.fixture(scope="session")
def record(device: torch.device) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """``record(suite, row)``; at the end each suite's rows replace its file for this device."""
    rows: dict[str, list[dict[str, Any]]] = {}
    yield lambda suite, row: rows.setdefault(suite, []).append(row)
    for suite, listed in rows.items():
        report = {"machine": _machine(device), "commit": _commit(), "rows": listed}
        path = RESULTS / f"{suite}-{device.type}.json"
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("w") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)


def _machine(device: torch.device) -> dict[str, str | int]:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    machine: dict[str, str | int] = {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
        machine["cuda"] = str(torch.version.cuda)
    return machine


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--", "vqkernels", "csrc", "CMakeLists.txt", "setup.py")
    return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
