"""The sizes at which speed is measured, of the data that ``cases.DATA`` makes, and ``drawn.DATA``.

Cases with one ``group`` are measured interleaved with one another, because they are compared with
one another; the others are groups of their own. ``short`` ones run in ``make bench``. Cases whose
``device`` is cuda have the data of ``device_data.py`` and run in ``make bench-gpu``. Cases with a
``module`` are about that class of another library.
"""

from __future__ import annotations

from typing import NamedTuple

import cases
import device_data
import drawn
import torch
from torch import Tensor

_CPU = torch.device("cpu")
_DATA = cases.DATA | drawn.DATA


class SpeedCase(NamedTuple):
    """N rows, K codes per level, D channels; ``dtype`` is that of x, codes are float32."""

    n: int
    k: int
    d: int
    data: str = "Gaussian"
    group: str = ""
    short: bool = False
    levels: int = 1
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    module: str = ""
    metric: str = "l2"

    @property
    def name(self) -> str:
        codes = f"{self.levels} x {self.k}" if self.levels > 1 else f"{self.k}"
        sizes = f"{self.n}, {codes}, {self.d}"
        if self.dtype is not torch.float32:
            sizes += f", {str(self.dtype).removeprefix('torch.')}"
        if self.data != "Gaussian":
            sizes += f", {self.data}"
        return f"{self.module}: {sizes}" if self.module else sizes

    @property
    def together(self) -> str:
        """Cases of which this is the same are measured interleaved."""
        return self.group or self.name

    @property
    def arguments(self) -> dict[str, str]:
        """What a contender is told beside x and the codebook."""
        return {"module": self.module} if self.module else {}

    @property
    def operations(self) -> int:
        """Of the search by brute force; a multiply-add is two."""
        return 2 * self.n * self.levels * self.k * self.d

    def make(self, device: torch.device = _CPU) -> tuple[Tensor, Tensor]:
        """x (N, D) and the codebook (K, D); of several levels the codebooks (L, K, D)."""
        if self.device != "cuda":
            made = (
                cases.residual(self.n, self.k, self.d, self.levels)
                if self.levels > 1
                else _DATA[self.data](self.n, self.k, self.d)
            )
            return made[0].to(device), made[1].to(device)
        x, codebook = device_data.DATA[self.data](self.n, self.k, self.d, device)
        # Everyone gets codes that x's dtype can hold, so that nobody's cast changes them.
        return x.to(self.dtype), codebook.to(self.dtype).float()

    def tiny(self) -> SpeedCase:
        """The same on any device in no time."""
        return self._replace(n=512, k=64)


SEARCH = (
    SpeedCase(65536, 1024, 64, short=True),
    SpeedCase(16384, 8192, 256),
    SpeedCase(16384, 8192, 64, short=True),
    SpeedCase(65536, 16384, 8),
    SpeedCase(32768, 65536, 32),
    SpeedCase(262144, 512, 8, short=True),
    SpeedCase(12000, 4096, 8, "photo patches", short=True),
)

# A call is short here, and what Python adds to it shows.
FEW_ROWS = tuple(SpeedCase(n, 1024, 64, short=n == 256) for n in (64, 256, 1024))

# The same size throughout, so that only the numbers differ.
HARD_DATA = tuple(
    SpeedCase(16384, 1024, 64, data, "data", short=data in ("Gaussian", "all equal"))
    for data in cases.DATA
)

# Time per pair must not depend on K.
MORE_CODES = tuple(SpeedCase(8192, 4**i, 32, group="codes") for i in range(5, 10))

# The same rows, and codes of which the first are the same.
GROWING = tuple(SpeedCase(16384, 4**i, 8, drawn.PHOTO, group="growing") for i in range(6, 10))
# What a search gains that does not look at every code: most, less and nothing.
PRUNED = (
    SpeedCase(65536, 16384, 8, drawn.PHOTO),
    SpeedCase(65536, 16384, 8, drawn.WHITE),
    SpeedCase(65536, 16384, 8),
    SpeedCase(65536, 16384, 32, drawn.PHOTO),
    SpeedCase(65536, 16384, 32),
)
PRUNED_TRAINING = (SpeedCase(65536, 16384, 8, drawn.WHITE),)

TRAINING = (
    SpeedCase(65536, 1024, 64, short=True),
    SpeedCase(16384, 8192, 256),
    SpeedCase(16384, 8192, 64),
    SpeedCase(16384, 16384, 8),
    SpeedCase(16384, 1024, 128, levels=8),
)

# One class of each library at one size, then at those of its own models. Codes are k-means codes,
# as those of a trained model.
_ENCODEC = "encodec ResidualVectorQuantizer"
_DAC = "descript-audio-codec ResidualVectorQuantize"
_DIFFUSERS = "diffusers VectorQuantizer"
CONVERTED = (
    *(
        SpeedCase(16384, 8192, 64, "photo patches", short=module == _DIFFUSERS, module=module)
        for module in (
            "vector-quantize-pytorch VectorQuantize",
            "taming VectorQuantizer2, rewritten",
            "zalando VectorQuantizerEMA, rewritten",
            "rosinality Quantize, rewritten",
            _ENCODEC,
            "transformers EncodecResidualVectorQuantizer",
            "transformers MimiSplitResidualVectorQuantizer",
            _DIFFUSERS,
        )
    ),
    SpeedCase(16384, 8192, 64, "photo patches", module=_DAC, metric="cosine"),
    SpeedCase(16384, 1024, 8, "photo patches", module=_DAC, metric="cosine"),
    SpeedCase(16384, 1024, 128, levels=8, module=_ENCODEC),
)

RESIDUAL = (SpeedCase(16384, 1024, 128, levels=8, short=True),)


def _gpu(n: int, k: int, d: int, data: str, dtype: torch.dtype = torch.float32) -> SpeedCase:
    return SpeedCase(n, k, d, data, short=True, device="cuda", dtype=dtype)


_GAUSSIAN, _PHOTO = device_data.DATA

GPU_SEARCH = (
    *(
        _gpu(*sizes, data)
        for sizes in (
            (262144, 16384, 8),
            (65536, 8192, 256),
            (1048576, 65536, 32),
            (65536, 1024, 64),
        )
        for data in (_GAUSSIAN, _PHOTO)
    ),
    *(_gpu(1048576, 16384, d, _GAUSSIAN, torch.bfloat16) for d in (64, 128, 256)),
)
GPU_TRAINING = (
    _gpu(65536, 1024, 64, _GAUSSIAN),
    _gpu(65536, 1024, 64, _PHOTO),
    _gpu(65536, 8192, 64, _GAUSSIAN),
)
GPU_CONVERTED = tuple(
    _gpu(65536, case.k, case.d, _PHOTO)._replace(module=case.module, metric=case.metric)
    for case in CONVERTED
    if case.levels == 1
)
