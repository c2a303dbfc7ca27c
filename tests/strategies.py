"""Hypothesis strategies: rows that lie anyhow, codebooks with ties, masks, gradients."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor

relaxed = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

_DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
_SIZES = st.integers(0, 5)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, Tensor | None]:
    """x in a random layout, a codebook with ties, the channel dimension, a mask or None."""
    d, k = draw(st.integers(1, 40)), draw(st.integers(1, 90))
    positions = draw(st.lists(_SIZES, min_size=1, max_size=4))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    spread, shift = draw(st.sampled_from([1e-6, 1.0, 1e4])), draw(st.sampled_from([0.0, 3.0, 1e3]))
    # Values on a coarse grid tie often, fine ones almost never.
    step = draw(st.sampled_from([0.0, 0.5]))

    def values(*shape: int) -> Tensor:
        raw = torch.randn(*shape, generator=g)
        raw = (raw / step).round() * step if step else raw
        return raw * spread + shift

    channel = draw(st.integers(0, len(positions)))
    order = draw(st.permutations(range(len(positions) + 1)))
    shape = [*positions[:channel], d, *positions[channel:]]
    margin = draw(st.integers(0, 2))
    memory = values(*(shape[axis] + margin for axis in order)).to(draw(_DTYPES))
    x = memory.permute([order.index(axis) for axis in range(len(shape))])
    for axis, size in enumerate(shape):
        x = x.narrow(axis, margin, size) if margin and size else x.narrow(axis, 0, size)
    mask = torch.rand(positions, generator=g) < 0.7 if draw(st.booleans()) else None
    return x, values(k, d).to(draw(_DTYPES)), channel, mask


@st.composite
def upstream(draw: st.DrawFn, like: Tensor) -> Tensor:
    """A gradient of ``like``: of ones or random, dense, permuted, or one number everywhere."""
    kind = draw(st.sampled_from(["expanded", "dense", "transposed"]))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if kind == "expanded":
        return torch.randn((), generator=g).to(like.dtype).expand_as(like)
    if kind == "dense":
        return torch.randn(like.shape, generator=g).to(like.dtype)
    reverse = tuple(reversed(range(like.ndim)))
    return torch.randn(like.shape[::-1], generator=g).to(like.dtype).permute(reverse)


@st.composite
def clumps(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """x (N, D) and a codebook whose codes lie in clumps, anywhere and at any scale.

    Rows are near the codes, halfway between two of them, or far from all.
    """
    d, k, n = draw(st.integers(1, 12)), draw(st.integers(1, 300)), draw(st.integers(1, 100))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = 10.0 ** draw(st.integers(-20, 17))
    spread = 10.0 ** -draw(st.integers(0, 8))
    offset = draw(st.sampled_from([0.0, 1.0, 1000.0]))
    centres = torch.randn(draw(st.integers(1, 20)), d, generator=g)
    codes = centres[torch.randint(len(centres), (k,), generator=g)]
    codes = codes + spread * torch.randn(k, d, generator=g) + offset
    same = torch.rand(k, generator=g) < draw(st.sampled_from([0.0, 0.3]))
    codes[same] = codes[torch.randint(k, (int(same.sum()),), generator=g)]
    one, other = codes[torch.randint(k, (2, n), generator=g)]
    kind = draw(st.sampled_from(["near", "halfway", "far"]))
    if kind == "halfway":
        x = (one + other) / 2
    else:
        away = spread if kind == "near" else 10.0 ** draw(st.integers(1, 6))
        x = one + away * torch.randn(n, d, generator=g)
    return x * scale, codes * scale
