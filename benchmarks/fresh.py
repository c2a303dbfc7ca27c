"""What only a process that has done nothing yet can tell: the first call, and peak memory.

A fork server imports the libraries once; every observation is a fork of it, which has called
nothing and started no threads.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import machine, memory, peers
from benchmarks.peers import originals

_PRELOADED = (
    *("torch", "vqkernels", "faiss", "sklearn.metrics", "vector_quantize_pytorch"),
    *(original.module for original in originals.ORIGINALS),
)
_FEW_ROWS = 64


class Job(NamedTuple):
    """A contender on a case on the CPU; arrays, because a process of its own gets a copy.

    ``x`` is float32, in which every ``dtype`` is exact and which numpy has.
    """

    table: str
    provider: str
    x: np.ndarray[Any, Any]
    codebook: np.ndarray[Any, Any]
    arguments: dict[str, Any]
    dtype: torch.dtype
    threads: int


def first_call_seconds(job: Job) -> float:
    """From x and a codebook in memory to the first indices; imports are done, compiling is not."""
    return _observe(_first_call, job)


def peak_extra_bytes(job: Job) -> int | None:
    """Of one call on the whole of x, after one on a few rows has loaded what is loaded lazily."""
    return _observe(_peak_extra, job)


def _observe(what: Any, job: Job) -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, __name__])
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(what, job).result()


def _first_call(job: Job) -> float:
    x, codebook = _inputs(job)
    provider = peers.find(job.table, job.provider)
    started = time.perf_counter()
    provider.build(x, codebook, **job.arguments)()
    return time.perf_counter() - started


def _peak_extra(job: Job) -> int | None:
    x, codebook = _inputs(job)
    provider = peers.find(job.table, job.provider)
    provider.build(x[:_FEW_ROWS], codebook, **job.arguments)()
    return memory.peak_extra(provider.build(x, codebook, **job.arguments), x.device)


def _inputs(job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    machine.limit_threads(job.threads)
    # Copies: what arrives is read-only memory of the message.
    return torch.tensor(job.x, dtype=job.dtype), torch.tensor(job.codebook)


@contextlib.contextmanager
def compiling_afresh() -> Iterator[None]:
    """Without the caches that torch.compile keeps from earlier runs; before the first job."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        yield
