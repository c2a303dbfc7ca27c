"""A code that takes every row costs no more than codes that share them, and loses no bit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
from backends import native_core
from torch import Tensor

from vqkernels import ops

pytestmark = pytest.mark.usefixtures("two_threads")

N, K, D = 49152, 256, 24
UNIFORM = torch.arange(N) * 97 % K
HOT = torch.full((N,), 5)
LAYOUTS = {
    "rows": lambda rows: rows,
    "planes": lambda rows: rows.reshape(3, -1, D).transpose(1, 2).contiguous(),
}


def _rows(used: Tensor) -> tuple[Tensor, Tensor]:
    """Rows close to the codes that they use, so that the search finds ``used``."""
    codebook = torch.randn(K, D, generator=cases.generator(1))
    noise = torch.randn(N, D, generator=cases.generator(2))
    return codebook[used] + 1e-3 * noise, codebook


def _everything(x: Tensor, codebook: Tensor, mask: Tensor | None) -> list[Tensor]:
    """All that one step computes in the ops: forward, gradient in x and in the codes."""
    forward = ops.vq_forward(x, codebook, None, mask, "l2", 1, True, "native")
    upstream, one = torch.ones_like(x), torch.ones(())
    weights = ("l2", "straight_through", 0.25, 1.0)
    backward = ops.vq_backward(
        upstream, one, x, *forward[:2], len(codebook), *weights, 1, True, True, "native"
    )
    return [*forward, *backward]


@pytest.mark.skipif(native_core() is None, reason="native is not built")
@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("used", [UNIFORM, HOT], ids=["uniform", "hot"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_change_no_bit(layout: str, used: Tensor, masked: bool) -> None:
    rows, codebook = _rows(used)
    x = LAYOUTS[layout](rows)
    positions = x.movedim(1, -1).shape[:-1]
    mask = (torch.arange(N) % 5 != 0).reshape(positions) if masked else None
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(_everything(x, codebook, mask))
    valid = torch.ones(N, dtype=torch.bool) if mask is None else mask.reshape(-1)
    assert torch.equal(results[0][1].reshape(-1)[valid], used[valid])
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.skipif(native_core() is None, reason="native is not built")
def test_the_layout_changes_no_bit_of_the_sums() -> None:
    for used in (UNIFORM, HOT):
        rows, codebook = _rows(used)
        whole = _everything(rows, codebook, None)
        planes = _everything(LAYOUTS["planes"](rows), codebook, None)
        for index in (2, 3, 4, 6):  # mse, counts, sums, gradient of the codes
            assert torch.equal(whole[index], planes[index])


def _least_work(calls: dict[str, Callable[[], Any]], rounds: int = 15) -> dict[str, float]:
    """Processor seconds of one thread, interleaved, the least of many rounds: waiting for another
    process does not count, and what else disturbs a machine only ever adds.
    """
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.thread_time()
            call()
            best[name] = min(best[name], time.thread_time() - started)
    return best


@pytest.mark.skipif(native_core() is None, reason="native is not built")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_hot_code_is_no_more_work_than_uniform_use(layout: str) -> None:
    """Coarsely: twice. Measured: less than once, because its rows are read in order."""
    torch.set_num_threads(1)
    x = LAYOUTS[layout](torch.randn(N, D, generator=cases.generator(3)))
    positions = x.movedim(1, -1).shape[:-1]
    seconds = _least_work(
        {
            name: lambda used=used: ops.code_sums(
                x, used.reshape(positions), K, None, "l2", 1, "native"
            )
            for name, used in (("uniform", UNIFORM), ("hot", HOT))
        }
    )
    assert seconds["hot"] <= 2.0 * seconds["uniform"]
