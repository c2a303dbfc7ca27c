"""The launched state ops return the bits of their specification in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
from backends import interpreted, native_core, state_launchers
from torch import Tensor

from vqkernels.ops.advance import in_torch as advance_in_torch
from vqkernels.ops.normalize_codes import in_torch as normalize_codes_in_torch
from vqkernels.ops.observe import in_torch as observe_in_torch
from vqkernels.ops.sample_rows import in_torch as sample_rows_in_torch

pytestmark = [
    pytest.mark.skipif(native_core() is None and not interpreted(), reason="native is not built"),
    pytest.mark.usefixtures("two_threads"),
]

launched = state_launchers()
DTYPES = [dtype for dtype in cases.DTYPES if not (interpreted() and dtype is torch.bfloat16)]
THREADS = (1,) if interpreted() else (1, 2, 3)

IDLE_LIMIT = 1 << 33
_MARKS = ("idle", "revived", "frozen")

State = dict[str, Tensor | None]


def _same_bits(got: Tensor, expected: Tensor) -> bool:
    return got.dtype == expected.dtype and torch.equal(
        got.nan_to_num(7.0), expected.nan_to_num(7.0)
    )


def _state(k: int, d: int, candidates: int) -> State:
    """A third of the codes is small, another one idle, a fifth frozen; a candidate is infinite."""
    g = cases.generator(k)
    counts = torch.randint(0, 9, (k,), generator=g).float()
    counts[torch.rand(k, generator=g) < 0.3] = 0.0
    if k == 37:
        counts[0] = 2.0**24  # rows in all that float32 cannot add up
    size = torch.rand(k, generator=g) * counts
    codebook = torch.randn(k, d, generator=g)
    rows = torch.randn(candidates, d, generator=g)
    rows[candidates // 2, d - 1] = torch.inf
    return {
        "codebook": codebook,
        "cluster_size": size,
        "embed_sum": codebook * size[:, None],
        "pending_counts": counts,
        "pending_sums": torch.randn(k, d, generator=g) * counts[:, None],
        "pending_rows": rows,
        "pending_steps": torch.tensor(2),
        "clock": torch.tensor(5),
        "idle": torch.randint(0, 3 * IDLE_LIMIT // 2, (k,), generator=g),
        "revived": torch.tensor(1 << 40),
        "frozen": torch.randint(-4, 2, (k,), generator=g).clamp(min=0),
    }


def _after(act: Callable[..., None], state: State, *options: Any) -> State:
    copy = {name: None if value is None else value.clone() for name, value in state.items()}
    act(*copy.values(), *options)
    return copy


def _agree(got: State, expected: State) -> bool:
    return all(
        value is None or _same_bits(got[name], value)  # type: ignore[arg-type]
        for name, value in expected.items()
    )


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize(
    "without",
    [(), ("pending_rows",), ("embed_sum", "pending_sums"), _MARKS, ("revived",), ("frozen",)],
    ids=str,
)
@pytest.mark.parametrize(("k", "d", "candidates"), [(1, 1, 1), (37, 3, 4), (3000, 24, 256)])
def test_advance(k: int, d: int, candidates: int, without: tuple[str, ...], metric: str) -> None:
    state = {
        name: None if name in without else value
        for name, value in _state(k, d, candidates).items()
    }
    for due, epsilon, idle_limit, every in [
        *((2, 1e-5, 0, 1), (2, 1e-5, IDLE_LIMIT, 1), (1, 0.0, IDLE_LIMIT, 3)),
        *((1, 0.0, IDLE_LIMIT, 4), (3, 1e-5, IDLE_LIMIT, 1)),
    ]:
        options = (0.9, epsilon, due, metric, 0.7, idle_limit, every)
        expected = _after(advance_in_torch, state, *options)
        for threads in THREADS:
            torch.set_num_threads(threads)
            assert _agree(_after(launched.advance, state, *options), expected), (threads, options)


@pytest.mark.parametrize("without", [(), ("pending_rows",), ("pending_sums",)], ids=str)
def test_observe(without: tuple[str, ...]) -> None:
    state = _state(3000, 24, 256)
    names = ("pending_counts", "pending_sums", "pending_rows", "pending_steps")
    state = {name: None if name in without else state[name] for name in names}
    sums, rows = torch.randn(3000, 24), torch.randn(256, 24)
    batch = (
        *(torch.arange(3000) % 5, None if "pending_sums" in without else sums),
        *((None, None) if "pending_rows" in without else (rows, torch.tensor(9))),
    )
    nothing = (torch.zeros(3000, dtype=torch.int64), *batch[1:3], torch.tensor(0))
    for statistics in (batch, nothing):
        expected = _after(observe_in_torch, state, *statistics)
        assert _agree(_after(launched.observe, state, *statistics), expected)


@pytest.mark.parametrize("masked", ["no", "some", "most", "all"])
@pytest.mark.parametrize("count", [1, 7, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_sample_rows(layout: str, dtype: torch.dtype, count: int, masked: str) -> None:
    rows, _ = cases.gaussian(24, 4, 6)
    rows[5, 2], rows[11, 0] = torch.nan, torch.inf
    x, channel_dim = cases.LAYOUTS[layout](rows.to(dtype))
    channel_dim %= x.ndim
    positions = x.movedim(channel_dim, -1).shape[:-1]
    keep = {"some": 3, "most": 10, "all": 1000}
    mask = None
    if masked != "no":
        mask = (torch.arange(positions.numel()) % keep[masked] == 1).reshape(positions)
        mask = mask & (masked != "all")
    for clock, seed in [(0, 0), (3, 1 << 40), (1 << 33, 2)]:
        arguments = (x, mask, torch.tensor(clock), count, seed, channel_dim)
        if positions.numel() == 0:
            continue
        found, expected = launched.sample_rows(*arguments), sample_rows_in_torch(*arguments)
        assert all(map(_same_bits, found, expected)), (clock, seed)


def test_sample_rows_draws_from_every_stratum_of_a_large_batch() -> None:
    x = torch.randn(5000, 3, generator=cases.generator(1))
    mask = torch.rand(5000, generator=cases.generator(2)) < 0.4
    for count in (256, 3000):
        arguments = (x, mask, torch.tensor(9), count, 0, 1)
        found, expected = launched.sample_rows(*arguments), sample_rows_in_torch(*arguments)
        assert all(map(_same_bits, found, expected))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("k", "d"), [(1, 1), (70, 5), (200, 64)])
def test_normalize_codes(k: int, d: int, dtype: torch.dtype) -> None:
    codebook = torch.randn(k, d, generator=cases.generator(3)).to(dtype)
    codebook[k // 2] = 0.0
    codebook[k // 3, d - 1] = torch.nan if k > 1 else 3.0
    for codes in (codebook, codebook.T.contiguous().T):
        expected = normalize_codes_in_torch(codes)
        for threads in THREADS:
            torch.set_num_threads(threads)
            assert all(map(_same_bits, launched.normalize_codes(codes), expected))


def test_a_write_through_a_pointer_is_a_write_to_autograd() -> None:
    """Else a graph that saved the codebook would be differentiated with the moved one."""
    state = _state(37, 3, 4)
    codebook = state["codebook"]
    assert codebook is not None
    weight = torch.ones(37, 3, requires_grad=True)
    product = (weight * codebook).sum()
    launched.advance(*state.values(), 0.9, 1e-5, 1, "l2", 0.7, 0, 1)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
