"""What a stage runs on, and what it leaves beside its results: seconds, inputs, environment."""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import set_seed  # type: ignore[import-untyped]

from vqtrain.config import RunConfig
from vqtrain.environment import environment
from vqtrain.files import remove_leftovers, write_json

# Work on 8x8 images does not feed more threads than this; more only wait for one another.
MOST_THREADS = 8


def start(config: RunConfig) -> Accelerator:
    """Sets threads and seed, picks device and precision, and joins the other ranks, if any.

    Every stage calls it first.

    Raises:
        ValueError: if `device` is cuda and there is none, `precision` is fp16 without one, or
            `threads` is negative.
    """
    if config.threads < 0:
        raise ValueError(f"threads must be at least 0, got {config.threads}")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be auto or cpu where torch sees no GPU, got 'cuda'")
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    if config.precision == "fp16" and on_cpu:
        raise ValueError("precision must be no or bf16 on a CPU, got 'fp16'")
    torch.set_num_threads(config.threads or min(available_cores(), MOST_THREADS))
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    set_seed(config.seed)
    # Precision is stated here, or it would come from the environment.
    return Accelerator(cpu=on_cpu, mixed_precision=config.precision)


def available_cores() -> int:
    """Cores this process may use: its affinity mask, or a container's quota if that is smaller."""
    cores = len(os.sched_getaffinity(0))
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def is_first_rank() -> bool:
    """Whether this process is the one that prints and writes; torchrun numbers its processes."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def stage(name: str, run: Path) -> Iterator[dict[str, Any]]:
    """Prints a stage's name, result and seconds, and keeps the seconds in `stages.json`.

    Args:
        name: of the stage.
        run: run folder; what dead processes left half-written there is removed, and `env.json`
            is written.

    Yields:
        A dictionary. What the stage puts under `result` is printed, and `seconds_before`, spent
        by processes that were interrupted, is added to its seconds.
    """
    note: dict[str, Any] = {}
    if not is_first_rank():
        yield note
        return
    print(f"[{name}] ...", flush=True)
    begin = time.perf_counter()
    remove_leftovers(run)
    write_json(run / "env.json", environment())
    yield note
    seconds = time.perf_counter() - begin + note.get("seconds_before", 0.0)
    write_json(run / "stages.json", {**_stages(run), name: {"seconds": round(seconds, 2)}})
    print(f"[{name}] {note.get('result', 'done')}  ({seconds:.1f} s)", flush=True)


def finished_before(name: str, run: Path, result: str, seconds: float) -> None:
    """Says so of a stage, and keeps its seconds if the process that finished it died too early.

    Args:
        name, run: as for `stage`.
        result: what it came to.
        seconds: that it took.
    """
    if name not in stage_seconds(run):
        with stage(name, run) as note:
            note.update(result=result, seconds_before=seconds)
    elif is_first_rank():
        print(f"[{name}] was finished before: {result}")


def fresh(name: str, run: Path, inputs: dict[str, Any]) -> bool:
    """Whether a stage was last made from these very inputs (see `keep_inputs`)."""
    return bool(_stages(run).get(name, {}).get("inputs") == _hash(inputs))


def keep_inputs(name: str, run: Path, inputs: dict[str, Any]) -> None:
    """Keeps in `stages.json` what a finished stage was made from; made again, it forgets them.

    Args:
        name, run: as for `stage`.
        inputs: JSON values: all of the configuration that matters, and the fingerprints of what
            earlier stages made.
    """
    stages = _stages(run)
    write_json(run / "stages.json", {**stages, name: {**stages[name], "inputs": _hash(inputs)}})


def stage_seconds(run: Path) -> dict[str, float]:
    """Seconds of every stage that has finished in this run folder."""
    return {name: entry["seconds"] for name, entry in _stages(run).items()}


def _stages(run: Path) -> dict[str, dict[str, Any]]:
    path = run / "stages.json"
    stages: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}
    return stages


def _hash(inputs: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
