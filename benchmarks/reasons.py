"""Why a case is as far from the FMA peak as it is; shown beside the measured share.

By table, then by case as the rows name it. Numbers are left to the rows.
"""

from __future__ import annotations

import speed_cases
from speed_cases import SpeedCase

_PER_ROW = (
    "work per row that does not grow with K: reading it and laying it out, comparing the groups' "
    "bounds, telling the winner inside its group, one exact distance"
)
_SMALL_D = (
    "eight multiply-adds per pair do not hide the one maximum per pair and the start of each "
    "register block"
)
_CALL = (
    "the Python call, three parallel regions of microseconds each, and reading the codebook a "
    "second time for its centre and scale"
)
_LARGE_CODEBOOK = (
    "packing the codebook, where equal codes are looked for on one core, and panels that come "
    "from beyond the second-level cache"
)
_MOVED = "the search's own gap; packing a codebook that has moved"
_PACKED = "the search's own gap; packing the codebook in every call"
_EQUAL = "over the peak: equal codes are found and searched once"


def _of_converted(case: SpeedCase) -> str:
    if case.metric == "cosine":
        return f"two projections around the codes, forward and backward; {_PACKED}"
    if case.levels > 1:
        return f"level by level, with the gradient of each; {_MOVED}"
    return _PACKED if case.module.startswith("transformers") else _MOVED


REASONS: dict[str, dict[str, str]] = {
    "nearest_code": {
        "65536, 1024, 64": _PER_ROW,
        "16384, 8192, 256": f"{_LARGE_CODEBOOK}; and {_PER_ROW}",
        "16384, 8192, 64": f"{_LARGE_CODEBOOK}; and {_PER_ROW}",
        "65536, 16384, 8": f"{_SMALL_D}; groups of 32 codes are evaluated exactly",
        "32768, 65536, 32": f"{_LARGE_CODEBOOK}; two scans over the maxima of 2048 groups per row",
        "262144, 512, 8": f"a row is 4096 multiply-adds only, against {_PER_ROW}; {_SMALL_D}",
        "12000, 4096, 8, photo patches": f"nearly equal codes: some rows have several groups to "
        f"evaluate exactly; {_SMALL_D}",
        "64, 1024, 64": _CALL,
        "256, 1024, 64": _CALL,
        "1024, 1024, 64": f"packing the codebook for few rows; {_PER_ROW}",
        "16384, 1024, 64": _PER_ROW,
        "16384, 1024, 64, all equal": _EQUAL,
        "16384, 1024, 64, half duplicated": _EQUAL,
        "16384, 1024, 64, photo patches": f"nearly equal codes: some rows have several groups to "
        f"evaluate exactly; {_PER_ROW}",
        "16384, 1024, 64, offset 1000": _PER_ROW,
        "16384, 1024, 64, scale 1e-20": _PER_ROW,
        "16384, 1024, 64, scale 1e18": _PER_ROW,
        **{
            f"8192, {4**i}, 32": f"{_PER_ROW}; with many codes their maxima leave the cache"
            for i in range(5, 10)
        },
    },
    "residual_quantize": {
        "16384, 8 x 1024, 128": "the work per row, once per level: layout, bounds, the winner in "
        "its group, gathering its code and subtracting it",
    },
    "training_step": {
        "65536, 1024, 64": "the search's own gap; then memory: two outputs of x's size are "
        "written, x is read again for the sums per code and for the gradient",
        "16384, 8192, 256": "the search's own gap; moving a codebook that is half of x's size",
        "16384, 8192, 64": _MOVED,
        "16384, 16384, 8": f"{_SMALL_D}; as many codes as rows, so that moving and packing them "
        "shows",
        "16384, 8 x 1024, 128": "the search's own gap, once per level; one more pass over the "
        "residuals for the sums per code of every level",
    },
    "converted_step": {case.name: _of_converted(case) for case in speed_cases.CONVERTED},
}
