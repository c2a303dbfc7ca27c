"""Interleaving, and the numbers that are drawn from it."""

from __future__ import annotations

import itertools
import time

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


def test_contenders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(timing, "_SAMPLE_SECONDS", 0.0)
    log: list[str] = []
    calls = {name: (lambda name=name: log.append(name)) for name in "ab"}
    samples = timing.interleaved(calls, CPU, Effort(4, 1.0), lambda: log.append("|"))
    rounds = "".join(log).split("|")[1:]
    assert [sorted(turn) for turn in rounds] == [["a", "b"]] * 4
    assert all(len(taken.seconds) == 4 for taken in samples.values())


def test_a_slow_contender_leaves_after_three_samples_and_the_others_go_on() -> None:
    calls = {"slow": lambda: time.sleep(0.01), "quick": lambda: time.sleep(0.0001)}
    samples = timing.interleaved(calls, CPU, Effort(5, 0.02))
    assert len(samples["slow"].seconds) == 3
    assert len(samples["quick"].seconds) == 5


def test_a_short_call_is_repeated_within_a_sample() -> None:
    taken = timing.interleaved({"a": lambda: time.sleep(0.0002)}, CPU, Effort(3, 1.0))["a"]
    assert taken.calls > 1
    assert all(0.0002 <= seconds < 0.002 for seconds in taken.seconds)


def test_ratios_are_taken_within_a_round() -> None:
    """A minute in which the machine is three times slower changes no ratio."""
    assert timing.ratios([2.0, 6.0, 2.0], [1.0, 3.0, 1.0, 1.0]) == (2.0, 2.0, 2.0)


def test_quartiles_stay_within_the_values() -> None:
    assert timing.quartiles([4.0, 1.0, 2.0, 3.0, 5.0]) == (2.0, 3.0, 4.0)
    assert timing.quartiles([7.0]) == (7.0, 7.0, 7.0)
