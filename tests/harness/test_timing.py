"""Interleaving, and the numbers that are drawn from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

from benchmarks import timing
from benchmarks.timing import Effort

CPU = torch.device("cpu")


def test_every_round_times_every_contender_once() -> None:
    for order in timing.orders(list("abcd"), 20):
        assert sorted(order) == list("abcd")


def test_nobody_always_follows_the_same_contender() -> None:
    orders = timing.orders(list("abc"), 20)
    pairs = {pair for order in orders for pair in itertools.pairwise(order)}
    assert len(pairs) == 6


def test_the_orders_are_the_same_in_every_run() -> None:
    assert timing.orders(list("abcd"), 5) == timing.orders(list("abcd"), 5)


class _Time:
    """A clock that only the contenders advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def taking(self, seconds: float) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Time:
    made = _Time()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.now)
    monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)
    return made


def test_contenders_take_turns(clock: _Time) -> None:
    log: list[str] = []
    slow = clock.taking(0.1)
    calls = {name: (lambda name=name: (log.append(name), slow())) for name in "ab"}
    samples = timing.interleaved(calls, CPU, Effort(4, 1.0), lambda: log.append("|"))
    rounds = "".join(log).split("|")[1:]
    assert [sorted(turn) for turn in rounds] == [["a", "b"]] * 4
    assert all(taken.seconds == pytest.approx([0.1] * 4) for taken in samples.values())


def test_a_slow_contender_leaves_after_three_samples_and_the_others_go_on(clock: _Time) -> None:
    calls = {"slow": clock.taking(5.0), "quick": clock.taking(0.1)}
    samples = timing.interleaved(calls, CPU, Effort(9, 1.0))
    assert len(samples["slow"].seconds) == 3
    assert len(samples["quick"].seconds) == 9


def test_a_contender_leaves_when_its_seconds_are_used(clock: _Time) -> None:
    taken = timing.interleaved({"a": clock.taking(0.25)}, CPU, Effort(9, 1.0))["a"]
    assert len(taken.seconds) == 4


def test_a_short_call_is_repeated_within_a_sample(clock: _Time) -> None:
    taken = timing.interleaved({"a": clock.taking(0.0003)}, CPU, Effort(3, 1.0))["a"]
    assert taken.calls == 7
    assert taken.seconds == pytest.approx([0.0003] * 3)


def test_on_a_gpu_the_cache_is_overwritten_before_every_call_and_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stream of a GPU that is not there: what is put on it, and the time that it takes."""
    stream: list[str] = []
    seconds = {"fill": 7.0, "call": 0.25}

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = len(stream)

        def elapsed_time(self, end: Event) -> float:
            return 1e3 * sum(seconds[what] for what in stream[self.at : end.at])

    class Filler:
        def zero_(self) -> None:
            stream.append("fill")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(timing, "_filler", lambda device: Filler())
    taken = timing._sample(lambda: stream.append("call"), 3, torch.device("cuda"))
    assert taken == 0.25
    assert stream == ["call", *["fill", "call"] * 3]


def test_ratios_are_taken_within_a_round() -> None:
    """A minute in which the machine is three times slower changes no ratio."""
    assert timing.ratios([2.0, 6.0, 2.0], [1.0, 3.0, 1.0, 1.0]) == (2.0, 2.0, 2.0)


def test_quartiles_stay_within_the_values() -> None:
    assert timing.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert timing.quartiles([7.0]) == (7.0, 7.0, 7.0)
