"""Run by test_tensor_core.py with TRITON_INTERPRET=1: two dots, one after the other."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tensor_core
import torch
import triton
import triton.language as tl

_M, _K, _N = 16, 48, 32


@triton.jit
def _two_dots(
    small_ptr,  # (M, K) fp16
    large_ptr,  # (M, K) fp16
    codes_ptr,  # (K, N) fp16
    out_ptr,  # (2, M, N) fp32: the small products first, and the large ones first
    M: tl.constexpr,
    K: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
):
    m, n = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    small_first = tl.zeros((M, N), tl.float32)
    large_first = tl.zeros((M, N), tl.float32)
    for start in range(0, K, BLOCK):
        k = start + tl.arange(0, BLOCK)
        small = tl.load(small_ptr + m * K + k[None, :])
        large = tl.load(large_ptr + m * K + k[None, :])
        codes = tl.load(codes_ptr + k[:, None] * N + n)
        small_first = tl.dot(large, codes, tl.dot(small, codes, small_first))
        large_first = tl.dot(small, codes, tl.dot(large, codes, large_first))
    tl.store(out_ptr + m * N + n, small_first)
    tl.store(out_ptr + (M + m) * N + n, large_first)


def _expected(first, second, codes, core):
    total = np.zeros((_M, _N), np.float32)
    for start in range(0, _K, 16):
        block = slice(start, start + 16)
        for part in (first, second):
            total = tensor_core.matmul(part[:, block], codes[block], total, core)
    return total


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(_M, _K, generator=generator).half()
    small = (torch.randn(_M, _K, generator=generator) * 2.0**-11).half()
    codes = torch.randn(_K, _N, generator=generator).half()

    def run():
        out = torch.empty(2, _M, _N)
        _two_dots[(1,)](small, large, codes, out, _M, _K, _N, 16)
        return out.numpy()

    plain = run()
    for arch in (80, 90):
        with tensor_core.emulated(arch) as use:
            found = run()
        core = tensor_core.unit(arch)
        parts = small.numpy(), large.numpy()
        np.testing.assert_array_equal(found[0], _expected(*parts, codes.numpy(), core))
        np.testing.assert_array_equal(found[1], _expected(*parts[::-1], codes.numpy(), core))
        assert (found[0] != found[1]).any()
        assert (found != plain).any()
        assert use.dots == 4 * _K // 16
        print(f"{arch}: as emulated")  # noqa: T201 (what the test reads)
    np.testing.assert_array_equal(run(), plain)
    print("restored")  # noqa: T201


main()
