"""The search alone: ours, torch and faiss on the same inputs in one run, with wrong rows.

python -m pytest -p no:xdist -s benchmarks/bench_nearest_code.py
"""

from __future__ import annotations

import pytest
import torch
from cases import SPEED, SpeedCase

import vqkernels as vq
from benchmarks import peers
from benchmarks.measure import interleaved

_ROUNDS = 7
_CHUNKS = (256, 1024, 4096)


@pytest.mark.parametrize("case", SPEED, ids=lambda case: case.name)
def test_nearest_code(case: SpeedCase, device, record, benchmark) -> None:
    x, codebook = (tensor.to(device) for tensor in case.make())
    providers = {
        "vqkernels": lambda: vq.nearest_code(x, codebook).indices,
        **{
            f"torch, {rows} rows at a time": peers.torch_chunked(x, codebook, rows)
            for rows in _CHUNKS
        },
    }
    if 4 * x.shape[0] * codebook.shape[0] <= 2**30:
        providers["torch, N x K matrix"] = peers.torch_naive(x, codebook)
    if device.type == "cpu":
        providers["faiss IndexFlatL2"] = peers.faiss_flat(x, codebook)

    timings = interleaved(providers, device, _ROUNDS)
    exact = vq.nearest_code(x[:4096], codebook, backend="reference").indices
    ours = timings["vqkernels"].median
    for name, call in providers.items():
        wrong = int((call()[:4096] != exact).sum())
        record(
            "nearest_code",
            {
                "case": case.name,
                "n": x.shape[0],
                "k": codebook.shape[0],
                "d": x.shape[1],
                "provider": name,
                "milliseconds": [round(1e3 * value, 4) for value in timings[name][:3]],
                "times_ours": round(timings[name].median / ours, 3),
                "wrong_rows": wrong,
                "checked_rows": exact.numel(),
            },
        )
        print(f"{case.name:28} {name:28} {timings[name].median / ours:7.2f}x, {wrong} wrong")
        if name == "vqkernels":
            assert wrong == 0
    benchmark.pedantic(providers["vqkernels"], rounds=3)
    benchmark.extra_info.update({name: value.median for name, value in timings.items()})


def test_training_step(device, record, benchmark) -> None:
    """Forward and backward of the module against the hand-written class it replaces."""
    torch.manual_seed(0)
    n, k, d = 16384, 1024, 64
    x = torch.randn(n // 256, d, 16, 16, device=device, requires_grad=True)
    mine = vq.nn.VectorQuantizer(k, d, init="normal").to(device)
    theirs = peers.HandWritten(k, d).to(device)

    def step_of_mine() -> None:
        out = mine(x)
        (out.quantized.square().mean() + out.loss).backward()

    def step_of_theirs() -> None:
        quantized, loss = theirs(x)
        (quantized.square().mean() + loss).backward()

    providers = {"vqkernels": step_of_mine, "hand-written torch": step_of_theirs}
    timings = interleaved(providers, device, _ROUNDS)
    ours = timings["vqkernels"].median
    for name, timing in timings.items():
        record(
            "training_step",
            {
                "case": f"{n}, {k}, {d}",
                "n": n,
                "k": k,
                "d": d,
                "provider": name,
                "milliseconds": [round(1e3 * value, 4) for value in timing[:3]],
                "times_ours": round(timing.median / ours, 3),
            },
        )
        print(f"training step {name:28} {timing.median / ours:7.2f}x")
    benchmark.pedantic(step_of_mine, rounds=3)
    benchmark.extra_info.update({name: value.median for name, value in timings.items()})
