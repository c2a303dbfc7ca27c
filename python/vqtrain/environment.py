"""What a run was made with, for `env.json`: versions, machine, the backend of each op."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import vqkernels as vq

SCHEMA = 1
PACKAGES = ("torch", "accelerate", "numpy", "safetensors", "scikit-learn", "scikit-image")


def environment() -> dict[str, Any]:
    """JSON values that say what a later reader needs to tell this run from another.

    Returns:
        Versions, `commit` (None outside a checkout of this package), machine, threads, and the
        backend that vqkernels picks for each op on the device at hand.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = torch.zeros(1, 2, device=device)
    return {
        "schema": SCHEMA,
        "python": platform.python_version(),
        "vqkernels": vq.__version__,
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "threads": torch.get_num_threads(),
        "backends": vq.explain(rows, rows).chosen,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this file lies in, with `+` if it has been changed."""
    here = Path(__file__).parent
    # An installed package may lie inside somebody else's repository, which does not track it.
    asked = ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        subprocess.run(asked, capture_output=True, check=True)
        described = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _cpu() -> str:
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        for line in cpus.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
