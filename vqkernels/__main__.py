"""``python -m vqkernels``: what is installed here, and whether it computes what it promises.

Exit status 0 when every available backend returns the reference's indices, 1 otherwise.
"""

from __future__ import annotations

import platform
import sys
import time

import torch
from torch import Tensor

import vqkernels as vq
from vqkernels.backends import native
from vqkernels.ops import dispatch

_CASES = (  # N, K, D, metric
    (500, 64, 8, "l2"),
    (300, 257, 33, "l2"),
    (300, 257, 33, "cosine"),
    (1000, 16, 4, "l2"),
)


def main() -> int:
    print(f"vqkernels {vq.__version__}, torch {torch.__version__}, {platform.machine()}")
    try:
        build = native.build_info()
    except (ValueError, RuntimeError) as error:  # VQK_ISA names no level, or one this CPU lacks
        print(f"native: not usable; {error}")
        return 1
    if build is None:
        print(f"native: not available; {native.missing()}")
    else:
        print(f"native: {', '.join(f'{key} {_text(value)}' for key, value in build.items())}")
    print(f"threads: {torch.get_num_threads()}")
    gpus = torch.cuda.device_count()
    print(f"GPUs: {', '.join(map(torch.cuda.get_device_name, range(gpus))) if gpus else 'none'}")

    failed = 0
    devices = ["cpu", *(f"cuda:{index}" for index in range(gpus))]
    for device in devices:
        for backend in dispatch.BACKENDS:
            failed += _check(device, backend)
    print("self-check: passed" if not failed else f"self-check: {failed} failed")
    return 1 if failed else 0


def _text(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _check(device: str, backend: str) -> int:
    """Compares one backend on one device with the reference on the CPU; 1 when it differs."""
    x, codebook = _inputs(*_CASES[0][:3])
    reason = dispatch.why_not("nearest_code", backend, x.to(device), codebook.to(device))
    if reason is not None:
        print(f"  {device:8} {backend:10} not used: {reason}")
        return 0
    started = time.perf_counter()
    wrong = 0
    for n, k, d, metric in _CASES:
        x, codebook = _inputs(n, k, d)
        expected = vq.nearest_code(x, codebook, metric=metric, backend="reference")
        got = vq.nearest_code(x.to(device), codebook.to(device), metric=metric, backend=backend)
        wrong += int((got.indices.cpu() != expected.indices).sum())
        wrong += int((got.distances.cpu() != expected.distances).sum())
    seconds = time.perf_counter() - started
    verdict = "ok" if wrong == 0 else f"FAILED: {wrong} values differ from the reference"
    print(f"  {device:8} {backend:10} {verdict} ({seconds:.2f} s)")
    if backend != "triton":
        return int(wrong > 0)
    share = dispatch.triton_launcher("unit_probe").share_of_bound(torch.device(device))
    coarse = not share <= 1.0
    verdict = "FAILED: errors exceed the bound" if coarse else "ok: errors within the bound"
    print(f"  {device:8} matrix unit {verdict} ({share:.2f} of it)")
    return int(wrong > 0) + int(coarse)


def _inputs(n: int, k: int, d: int) -> tuple[Tensor, Tensor]:
    """Vectors with an offset, duplicated codes and exact ties: where shortcuts go wrong."""
    generator = torch.Generator().manual_seed(n + k + d)
    codebook = torch.randn(k, d, generator=generator) + 100.0
    codebook[k // 2] = codebook[1]
    x = torch.randn(n, d, generator=generator) + 100.0
    x[: k // 4] = codebook[: k // 4]
    return x, codebook


if __name__ == "__main__":
    sys.exit(main())
