"""First calls and peak memory, in processes that have done nothing before."""

from __future__ import annotations

import pytest
import torch

from benchmarks import fresh, memory
from benchmarks.peers import OURS

_MEGABYTE = 1 << 20


def _job(provider: str, n: int, k: int) -> fresh.Job:
    x, codebook = torch.zeros(n, 4).numpy(), torch.zeros(k, 4).numpy()
    return fresh.Job("nearest_code", provider, x, codebook, {}, torch.float32, 1)


def test_a_matrix_of_n_by_k_shows_in_the_peak_and_ours_has_none() -> None:
    n, k = 8192, 2048
    naive = fresh.peak_extra_bytes(_job("torch N x K", n, k))
    if naive is None:
        pytest.skip("the high-water mark of memory cannot be reset here")
    ours = fresh.peak_extra_bytes(_job(OURS, n, k))
    assert ours is not None
    assert naive >= 2 * 4 * n * k
    assert ours < 10 * _MEGABYTE


def test_the_first_call_takes_time() -> None:
    assert 0 < fresh.first_call_seconds(_job(OURS, 10, 10)) < 10


def test_the_peak_of_a_call_is_what_it_touched_at_once() -> None:
    def call() -> None:
        torch.ones(16 * _MEGABYTE // 4)

    extra = memory.peak_extra(call, torch.device("cpu"))
    if extra is None:
        pytest.skip("the high-water mark of memory cannot be reset here")
    assert 14 * _MEGABYTE < extra < 24 * _MEGABYTE
