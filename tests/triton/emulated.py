"""Run by test_certificate.py with TRITON_INTERPRET=1: the search on emulated tensor cores.

Arguments: an architecture, and by how much the bounds are divided. Prints one line per wrong case,
then how many rows of how many were closed by the certificate.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import cases
import numpy as np
import oracle
import tensor_core
import triton
import triton.language as tl  # noqa: F401 (the interpreter looks for the name)
from torch import Tensor

from vqkernels.backends.triton import bound, nearest_code, pack
from vqkernels.backends.triton.hardware import Hardware
from vqkernels.ops import normalize_codes

_HARD = (
    "gaussian",
    "near ties",
    "photo unit norm",
    "photo 4x4x3 PCA 32",
    "photo 8x8",
    "shifted by 1000",
    "scale 1e-20",
    "scale 1e18",
    "mixed scales",
    "float32 denormals",
    "half duplicated",
    "x on codes",
)
# Where a bound too small shows.
_TIGHT = ("photo 4x4x3 PCA 32", "half duplicated")
_SHARED = {80: 163 << 10, 90: 227 << 10}
_code_lanes, _rounding = bound.code_lanes, nearest_code.rounding
_open_rows = []


_share = 1.0 / float(sys.argv[2])


@triton.jit
def _weaker_lanes(lane, usable, bias, rounding, delta, h, t, shift_norm, shift_bias):
    return _code_lanes(
        lane, usable, bias, rounding * _share, delta * _share, h * _share, t * _share,
        shift_norm, shift_bias,
    )  # fmt: skip


def _weaker_rounding(*layout):
    return _rounding(*layout) * _share


def _searched(name: str, x: Tensor, codebook: Tensor, metric: str) -> int:
    codes = normalize_codes(codebook)[0] if metric == "cosine" else codebook
    found, _ = nearest_code.nearest_code(x, codes, None, metric, 1)
    expected, _ = oracle.nearest_code(x, codes, metric)
    wrong = int((found.numpy() != expected).sum())
    if wrong:
        print(f"wrong: {name} {metric} {tuple(x.shape)}")  # noqa: T201
    return len(x)


def _pairs():
    for name in _HARD if _share == 1.0 else _TIGHT:
        x, codebook = cases.search(name)
        yield name, x[:16], codebook[:256]
    if _share != 1.0:
        return
    for d in (3, 16, 72, 136):
        yield f"near ties {d}", *cases.near_ties(16, 256, d)
    yield "near ties fp16", *(value.half() for value in cases.near_ties(16, 256, 40))


def _spied(scan):
    def spy(x, codebook, exponent, rows, *rest):
        _open_rows.append(int(rows.count))
        return scan(x, codebook, exponent, rows, *rest)

    return spy


def main(arch: int) -> None:
    device = Hardware(4, bound.UNITS[arch], _SHARED[arch], arch // 10)
    np.seterr(all="ignore")
    with (
        mock.patch.object(nearest_code, "hardware", return_value=device),
        mock.patch.object(nearest_code, "scan", _spied(nearest_code.scan)),
        mock.patch.object(nearest_code, "_WORTH_PROBING", 0),
        mock.patch.object(nearest_code, "rounding", _weaker_rounding),
        mock.patch.object(pack, "code_lanes", _weaker_lanes),
        tensor_core.emulated(arch),
    ):
        rows = sum(_searched(name, x, codebook, "l2") for name, x, codebook in _pairs())
        x, codebook = cases.search("photo unit norm")
        rows += _searched("photo unit norm", x[:16], codebook[:256], "cosine")
    print(f"{rows - sum(_open_rows)} of {rows}")  # noqa: T201


main(int(sys.argv[1]))
