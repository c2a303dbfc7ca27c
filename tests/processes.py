"""Real processes with a deadline: a hang is a failure, and shows what was printed until then."""

from __future__ import annotations

import ast
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
WORKERS = TESTS / "distributed" / "workers"


def checks(script: str) -> list[str]:
    """The names in a worker script's CHECKS; importing it here would start a process group."""
    tree = ast.parse((WORKERS / f"{script}.py").read_text())
    (listed,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHECKS"
    )
    return [ast.unparse(name) for name in listed.elts]


def assert_passed(ranks: int, scripts: tuple[str, ...], check: str) -> None:
    """That ``check`` has passed on every rank, of a launch that runs all the scripts."""
    output = output_of(ranks, scripts)
    passed = output.splitlines().count(f"passed {check}")
    assert passed == ranks, f"{check} passed on {passed} of {ranks} ranks:\n{output[-6000:]}"


@functools.cache
def output_of(ranks: int, scripts: tuple[str, ...], deadline: float = 240.0) -> str:
    """What ``ranks`` processes printed that ran the worker scripts; they are run once."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={ranks}", str(WORKERS / "main.py"), *scripts]
    path = os.pathsep.join([str(WORKERS), str(TESTS), str(TESTS.parent), *sys.path])
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=deadline)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0] + f"\nstill running after {deadline} s"
