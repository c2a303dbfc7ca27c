"""Runs every probe on every contender, each in processes of its own with a deadline."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks import machine, render, results
from benchmarks.trust.contenders import CONTENDERS, Contender, find
from benchmarks.trust.probes import PROBES, outcome
from benchmarks.trust.ranks import RANKS
from benchmarks.trust.table import PATH

_DEADLINE = 60


def _run(probe: str, contender: Contender) -> str:
    """What the probe wrote, "hangs" when it was not done in time, or how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        inner = [probe, contender.name, str(result)]
        command = [sys.executable, "-m", "benchmarks.trust", "--one", *inner]
        if probe in RANKS:
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
            command = [sys.executable, *launch, "-m", "benchmarks.trust.ranks", *inner]
        process = subprocess.Popen(
            command,
            cwd=machine.ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            printed, _ = process.communicate(timeout=_DEADLINE)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its workers, which are in sessions of their own
            process.communicate()
            return f"hangs (killed after {_DEADLINE} s)"
        if not result.exists():
            raise RuntimeError(f"{probe!r} of {contender.name} must leave a result:\n{printed}")
        return result.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="probes whose name contains this")
    parser.add_argument("--one", nargs=3, metavar=("PROBE", "CONTENDER", "RESULT"))
    arguments = parser.parse_args()
    if arguments.one:
        probe, contender, result = arguments.one
        Path(result).write_text(outcome(PROBES[probe], find(contender)))
        return
    found: dict[str, dict[str, str]] = {}
    for probe in [name for name in (*PROBES, *RANKS) if arguments.only in name]:
        found[probe] = {}
        for contender in CONTENDERS:
            found[probe][contender.name] = _run(probe, contender)
            print(f"{probe}: {contender.name}: {found[probe][contender.name]}", flush=True)
    if arguments.only:
        return
    written = {
        "measured": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.name(torch.device("cpu"), machine.default_threads()),
        "commit": machine.commit(),
        "versions": {c.name: machine.version(c.package) for c in CONTENDERS},
        "probes": found,
    }
    results.write(PATH, json.dumps(written, indent=1) + "\n")
    render.main([])


if __name__ == "__main__":
    main()
