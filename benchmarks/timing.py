"""Timing that survives a noisy machine: interleaved rounds, medians with their quartiles."""

from __future__ import annotations

import functools
import math
import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch

Call = Callable[[], Any]
Key = TypeVar("Key", bound=Hashable)

# A sample lasts at least this long: shorter calls are repeated within it.
_SAMPLE_SECONDS = 0.002
# OpenMP keeps the threads of the last parallel region spinning for a while. Every library brings
# its own pool, so that without a pause one contender's threads slow the next contender down.
_PAUSE_SECONDS = 0.005
_FEWEST_SAMPLES = 3
# Written before every timed call on a GPU: larger than any second-level cache, so that every
# contender finds x and the codebook in memory, and nobody in the cache that the last one left.
_CACHE_BYTES = 256 << 20


class Quartiles(NamedTuple):
    low: float
    median: float
    high: float


class Samples(NamedTuple):
    """``seconds[i]`` per call in round i; each is the mean of ``calls`` calls in a row."""

    seconds: list[float]
    calls: int


class Effort(NamedTuple):
    """How long a measurement may take.

    Attributes:
        rounds: samples of a contender, at most.
        seconds: a contender that has used them is left out of the rounds that follow; it has
            three samples by then.
    """

    rounds: int
    seconds: float


def interleaved(
    calls: Mapping[Key, Call],
    device: torch.device,
    effort: Effort,
    before_round: Call = lambda: None,
) -> dict[Key, Samples]:
    """Times every contender once per round, so that a slow minute hits all of them alike.

    Args:
        calls: each has been called once already.
        before_round: called at the start of every round, untimed.
    """
    loops = {key: _calls_per_sample(call, device) for key, call in calls.items()}
    seconds: dict[Key, list[float]] = {key: [] for key in calls}
    for order in orders(list(calls), effort.rounds):
        before_round()
        for key in order:
            taken = seconds[key]
            if len(taken) < _FEWEST_SAMPLES or sum(taken) * loops[key] < effort.seconds:
                time.sleep(_PAUSE_SECONDS)
                taken.append(_sample(calls[key], loops[key], device))
    return {key: Samples(seconds[key], loops[key]) for key in calls}


def orders(keys: list[Key], rounds: int) -> list[list[Key]]:
    """One shuffled order per round, the same every time: nobody always follows the same one."""
    shuffle = random.Random(0)
    return [shuffle.sample(keys, len(keys)) for _ in range(rounds)]


def quartiles(values: list[float]) -> Quartiles:
    if len(values) < 2:
        return Quartiles(*values * 3)
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))


def ratios(theirs: list[float], ours: list[float]) -> Quartiles:
    """Quartiles of their time over ours, round by round; rounds that one of them left are out."""
    return quartiles([a / b for a, b in zip(theirs, ours, strict=False)])


def _calls_per_sample(call: Call, device: torch.device) -> int:
    seconds = _sample(call, 1, device)
    if seconds < 10 * _SAMPLE_SECONDS:  # one call that was disturbed does not decide
        seconds = min(seconds, *(_sample(call, 1, device) for _ in range(2)))
    return max(1, math.ceil(_SAMPLE_SECONDS / seconds))


def _sample(call: Call, loops: int, device: torch.device) -> float:
    """Seconds per call."""
    if loops > 1:
        call()  # warms what the pause and the other contenders have cooled
    if device.type == "cuda":
        return _sample_on_cuda(call, loops, device)
    started = time.perf_counter()
    for _ in range(loops):
        call()
    return (time.perf_counter() - started) / loops


def _sample_on_cuda(call: Call, loops: int, device: torch.device) -> float:
    """What passes on the stream between an event before a call and one after it."""
    filler = _filler(device)
    spans = []
    for _ in range(loops):
        filler.zero_()
        span = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        span[0].record()
        call()
        span[1].record()
        spans.append(span)
    torch.cuda.synchronize(device)
    return sum(begin.elapsed_time(end) for begin, end in spans) / 1e3 / loops


@functools.cache
def _filler(device: torch.device) -> torch.Tensor:
    return torch.empty(_CACHE_BYTES, dtype=torch.int8, device=device)
