"""Run by test_interpreter.py with TRITON_INTERPRET=1: prints one line per wrong case."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import cases
import numpy as np
import oracle
import torch
from torch import Tensor

import vqkernels as vq
from vqkernels.backends.triton.unit_probe import share_of_bound

_DTYPES = (torch.float32, torch.float16)
_KINDS = ((torch.float32, "l2"), (torch.float32, "cosine"), (torch.float16, "l2"))
_SMALL = [name for name in cases.SEARCH if not name.startswith("photo")]


def _check(label: str, x: Tensor, codebook: Tensor, metric: str, channel_dim: int = 1) -> bool:
    found = vq.nearest_code(x, codebook, metric=metric, channel_dim=channel_dim, backend="triton")
    indices, distances = oracle.nearest_code(cases.as_matrix(x, channel_dim), codebook, metric)
    same = np.array_equal(found.indices.reshape(-1).numpy(), indices) and np.array_equal(
        found.distances.reshape(-1).numpy(), distances, equal_nan=True
    )
    if not same:
        print(f"wrong: {label} {x.dtype} {metric}")  # noqa: T201 (what the test reads)
    return same


def main() -> None:
    for dtype, metric in _KINDS:
        for name in _SMALL:
            x, codebook = cases.search(name, dtype)
            _check(name, x[:16], codebook[:80], metric)
    for dtype, metric in zip(_DTYPES, cases.METRICS, strict=True):
        for name, layout in cases.LAYOUTS.items():
            rows, codebook = cases.batch()
            x, channel_dim = layout(rows.to(dtype))
            _check(name, x, codebook, metric, channel_dim)
    for dtype in _DTYPES:
        x, codebook = cases.search("photo 2x2x3", dtype)
        _check("photo 2x2x3", x[:24], codebook[:300], "l2")
    x, codebook = cases.batch()
    out = vq.vector_quantize(x, codebook, backend="triton")
    if not torch.equal(out.quantized, codebook[out.indices]):
        print("wrong: vector_quantize")  # noqa: T201
    if not 0.0 < share_of_bound(torch.device("cpu")) <= 1.0:
        print("wrong: matrix unit")  # noqa: T201
    try:
        vq.nearest_code(x.bfloat16(), codebook, backend="triton")
    except TypeError as error:
        print(error)  # noqa: T201


main()
