"""The CUDA kernels compiled for this CPU: csrc/cuda over tests/native/cuda_on_host."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import oracle
import torch
from torch import Tensor

from vqkernels._layout import row_dims

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "csrc" / "cuda"
STAND_IN = ROOT / "tests" / "native" / "cuda_on_host"
COMPILER = shutil.which("g++")

_DTYPE = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_GARBAGE = 0xFF  # NaN in every float format, -1 in every integer


def build(library: Path, kernels: Path = KERNELS) -> ctypes.CDLL:
    """Compiles the kernels in a folder; bound.cuh and the others may be copies with a fault."""
    sources = [kernels / "nearest_code.cu", kernels / "code_sums.cu"]
    sources += [ROOT / "csrc/cpu/rows.cpp", STAND_IN / "machine.cpp", STAND_IN / "calls.cpp"]
    includes = [f"-I{STAND_IN}", f"-I{ROOT / 'csrc/include'}"]
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-ffp-contract=off", "-Werror"]
    subprocess.run(
        [str(COMPILER), *flags, *includes, "-xc++", *sources, "-o", library], check=True
    )
    found = ctypes.CDLL(str(library))
    found.nearest_code_workspace.restype = ctypes.c_int64
    found.code_sums_workspace.restype = ctypes.c_int64
    return found


def nearest_code(
    library: ctypes.CDLL, x: Tensor, codebook: Tensor, metric: str, channel_dim: int = 1
) -> tuple[Tensor, Tensor]:
    """(N,) indices and distances; the codebook is not normalised yet."""
    codes = codebook.float().contiguous()
    if metric == "cosine":
        codes = torch.from_numpy(oracle.normalised(codes.double().numpy()))
    rows, n, _ = _rows(x, channel_dim)
    size = library.nearest_code_workspace(_long(n), _long(len(codes)))
    workspace = _unwritten(size, torch.uint8)
    indices, distances = _unwritten(n, torch.int64), _unwritten(n, torch.float32)
    library.nearest_code(
        *rows,
        _pointer(codes),
        _long(len(codes)),
        int(metric == "cosine"),
        *map(_pointer, (workspace, indices, distances)),
    )
    return indices, distances


def code_sums(
    library: ctypes.CDLL,
    x: Tensor,
    indices: Tensor,
    num_codes: int,
    mask: Tensor | None = None,
    *,
    unit: bool = False,
    channel_dim: int = 1,
) -> tuple[Tensor, Tensor]:
    """Counts and sums, as the launcher of the extension makes them."""
    rows, n, dim = _rows(x, channel_dim)
    flat = indices.reshape(-1).contiguous()
    kept = None if mask is None else mask.reshape(-1).contiguous()
    keys = _unwritten(n, torch.int32)
    scales = _unwritten(n, torch.float64) if unit else None
    library.code_keys(
        *rows,
        *map(_pointer, (flat, kept)),
        _long(num_codes),
        ctypes.c_bool(True),
        *map(_pointer, (keys, scales)),
    )
    keys, order = torch.sort(keys, stable=True)
    workspace = _unwritten(
        library.code_sums_workspace(*map(_long, (n, dim, num_codes))), torch.uint8
    )
    counts = _unwritten(num_codes, torch.int64)
    sums = _unwritten(num_codes * dim, torch.float32).view(num_codes, dim)
    library.code_sums(
        *rows,
        *map(_pointer, (keys, order, scales)),
        _long(num_codes),
        *map(_pointer, (workspace, counts, sums)),
    )
    return counts, sums


def _rows(x: Tensor, channel_dim: int) -> tuple[list[Any], int, int]:
    sizes, columns = row_dims(channel_dim % x.ndim, x)
    strides = [stride for (stride,) in columns]
    n, dim = torch.Size(sizes).numel(), x.shape[channel_dim]
    longs = ctypes.c_int64 * len(sizes)
    pointers = [_pointer(x), _DTYPE[x.dtype], len(sizes), longs(*sizes), longs(*strides)]
    return [*pointers, _long(dim), _long(x.stride(channel_dim))], n, dim


def _unwritten(count: int, dtype: torch.dtype) -> Tensor:
    return torch.full((count * dtype.itemsize,), _GARBAGE, dtype=torch.uint8).view(dtype)


def _pointer(value: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(0 if value is None else value.data_ptr())


def _long(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)
