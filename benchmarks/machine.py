"""What the numbers were measured on: machine, commit, threads, and the FMA peak of the CPU."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

import vqkernels

ROOT = Path(__file__).resolve().parents[1]
# What a number depends on; changed files elsewhere do not mark a commit as changed.
_SOURCES = (
    "vqkernels",
    "csrc",
    "CMakeLists.txt",
    "setup.py",
    "benchmarks/peers",
    "tests",
    "python/vqtrain/priors",
)
_PEAK_SECONDS = 0.01


def name(device: torch.device, threads: int) -> str:
    """Short and the same on every run; rows are keyed by it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    described = _cpu()
    model = described.get("model name", platform.processor() or platform.machine())
    version = ""
    if "cpu family" in described:  # virtual machines hide the model's name, not these
        version = f" ({described['cpu family']}/{described['model']})"
    return f"{model}{version}, {threads} {'thread' if threads == 1 else 'threads'}"


def commit() -> str:
    """The commit, "+changes" when a measured source differs from it, "unknown" without git."""
    try:
        changed = _git("status", "--porcelain", "--", *_SOURCES)
        return _git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def version(package: str) -> str:
    """Name and version of a distribution; ours need not be installed to be measured."""
    if package == "vqkernels":
        return f"{package} {vqkernels.__version__}"
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        name = importlib.metadata.packages_distributions()[package][0]
        return f"{name} {importlib.metadata.version(name)}"


def software(device: torch.device) -> dict[str, str]:
    """Versions that a number depends on besides the contender's own."""
    found = {"torch": str(torch.__version__)}
    if device.type == "cuda":
        found["triton"] = importlib.metadata.version("triton")
        found["cuda"] = str(torch.version.cuda)
        found["driver"] = _driver()
    return found


def where(device: torch.device, threads: int) -> dict[str, str]:
    """What is the same for every row of a run that starts now."""
    return {
        "machine": name(device, threads),
        "commit": commit(),
        "measured": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **software(device),
    }


def limit_threads(threads: int) -> None:
    """The same number of threads for every library of this process."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    torch.set_num_threads(threads)


def default_threads() -> int:
    return len(os.sched_getaffinity(0))


def fma_peak(threads: int) -> float | None:
    """float32 operations per second that the CPU does just now; None without the native core."""
    try:
        core = importlib.import_module("vqkernels._native")
    except ImportError:
        return None
    return float(core.fma_peak(threads, _PEAK_SECONDS))


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip()


def _cpu() -> dict[str, str]:
    """The first processor of /proc/cpuinfo."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
