"""The codes that a quantizer starts with."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels import _checks

_INITS = ("kmeans", "uniform", "normal")


def initial_codes(init: str | Tensor, k: int, d: int) -> Tensor:
    """(K, D) float32 by the option ``init``; until k-means runs it is "normal"."""
    if isinstance(init, Tensor):
        _checks.codebook(init, "init")
        _checks.shaped("init", init, (k, d))
        if not init.is_meta and not init.isfinite().all():
            raise ValueError("init must be finite, got a NaN or an infinity")
        return init.detach().to(torch.float32, copy=True)
    if not isinstance(init, str):
        raise TypeError(f"init must be a string or a (K, D) tensor, got {type(init).__name__}")
    _checks.one_of("init", init, _INITS)
    if init == "uniform":
        return torch.empty(k, d, dtype=torch.float32).uniform_(-1.0 / k, 1.0 / k)
    return torch.randn(k, d, dtype=torch.float32)
