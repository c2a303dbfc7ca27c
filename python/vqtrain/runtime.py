"""What a stage runs on: device, threads and seed, and the line that says how long it took."""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import set_seed  # type: ignore[import-untyped]

from vqtrain.config import RunConfig
from vqtrain.files import write_json

# Work on 8x8 images does not feed more threads than this; more only wait for one another.
MOST_THREADS = 8


def start(config: RunConfig) -> Accelerator:
    """Sets threads and seed and picks the device. Every stage calls it first.

    Raises:
        ValueError: if `device` is cuda and there is none, or `threads` is negative.
    """
    if config.threads < 0:
        raise ValueError(f"threads must be at least 0, got {config.threads}")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be auto or cpu where torch sees no GPU, got 'cuda'")
    torch.set_num_threads(config.threads or min(available_cores(), MOST_THREADS))
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    set_seed(config.seed)
    # Precision is stated here, or it would come from the environment.
    return Accelerator(cpu=config.device == "cpu", mixed_precision="no")


def available_cores() -> int:
    """Cores this process may use: its affinity mask, or a container's quota if that is smaller."""
    cores = len(os.sched_getaffinity(0))
    quota_file = Path("/sys/fs/cgroup/cpu.max")
    if quota_file.is_file():
        quota, period = quota_file.read_text().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


@contextmanager
def stage(name: str, run: Path) -> Iterator[dict[str, str]]:
    """Prints a stage's name, result and seconds, and keeps the seconds in `stages.json`.

    Yields:
        A dictionary; what the stage puts under `result` is printed with its seconds.
    """
    note: dict[str, str] = {}
    print(f"[{name}] ...", flush=True)
    begin = time.perf_counter()
    yield note
    seconds = time.perf_counter() - begin
    write_json(run / "stages.json", {**stage_seconds(run), name: round(seconds, 2)})
    print(f"[{name}] {note.get('result', 'done')}  ({seconds:.1f} s)", flush=True)


def stage_seconds(run: Path) -> dict[str, float]:
    """Seconds of every stage that has finished in this run folder."""
    path = run / "stages.json"
    seconds: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    return seconds
