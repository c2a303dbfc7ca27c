"""Timing that survives a noisy machine: interleaved rounds, medians with their spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch


class Timing(NamedTuple):
    """Seconds per call over the rounds.

    Attributes:
        median, low, high: median and quartiles.
        rounds: number of rounds.
    """

    median: float
    low: float
    high: float
    rounds: int


def interleaved(
    providers: Mapping[str, Callable[[], Any]], device: torch.device, rounds: int
) -> dict[str, Timing]:
    """Times every provider once per round, so that a slow minute hits all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in providers}
    for call in providers.values():
        call()
    for _ in range(rounds):
        for name, call in providers.items():
            seconds[name].append(_once(call, device))
    return {name: _summary(values) for name, values in seconds.items()}


def _once(call: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def _summary(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4)
    return Timing(median, low, high, len(values))
