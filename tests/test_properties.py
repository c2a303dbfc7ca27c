"""Random shapes, dtypes, strides, masks and metrics against the oracle and the textbook."""

from __future__ import annotations

import oracle
import textbook
import torch
from backends import available
from budget import assert_within_budget
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import vqkernels as vq

_DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
_SIZES = st.integers(0, 5)


@st.composite
def _inputs(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, Tensor | None]:
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


@settings(
    max_examples=60,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    inputs=_inputs(),
    metric=st.sampled_from(["l2", "cosine"]),
    estimator=st.sampled_from(["straight_through", "rotation"]),
    backend=st.sampled_from(available()),
)
def test_any_step_agrees_with_oracle_and_textbook(
    inputs: tuple[Tensor, Tensor, int, Tensor | None], metric: str, estimator: str, backend: str
) -> None:
    x, codebook, channel, mask = inputs
    options = {"metric": metric, "estimator": estimator}
    leaf, codes = x.detach().requires_grad_(), codebook.clone().requires_grad_()
    out = vq.vector_quantize(
        leaf, codes, mask=mask, channel_dim=channel, backend=backend, **options
    )
    rows = x.movedim(channel, -1).reshape(-1, x.shape[channel])
    keep = torch.ones(len(rows), dtype=torch.bool) if mask is None else mask.reshape(-1)
    indices = torch.from_numpy(oracle.nearest_code(rows, codebook, metric)[0])
    assert torch.equal(out.indices.reshape(-1), torch.where(keep, indices, -1))
    assert torch.equal(out.usage.counts, torch.bincount(indices[keep], minlength=len(codebook)))

    # A zero vector has no direction: rotation and cosine are defined apart from autograd there.
    if bool((rows.double().norm(dim=1) == 0).any() | (codebook.double().norm(dim=1) == 0).any()):
        return
    (out.quantized.sum() + out.loss).backward()

    def truth(dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [value.detach().clone() for value in (rows, codebook)]
        if dtype == torch.float64:
            leaves = [value.double() for value in leaves]
        leaves = [value.requires_grad_() for value in leaves]
        step = textbook.quantize(
            *(value.to(dtype) for value in leaves), mask=keep, indices=indices, **options
        )
        total = step.quantized.sum() + step.loss
        return step.loss.detach(), *torch.autograd.grad(total, leaves)

    exact, eager = truth(torch.float64), truth(torch.float32)
    got = out.loss.detach(), leaf.grad.movedim(channel, -1).reshape(rows.shape), codes.grad
    shortest = [_shortest(value) if metric == "cosine" else 1.0 for value in (rows, codebook)]
    # Upstream of ones plus both loss terms, projected to the tangent and divided by the length.
    upstream = rows.shape[1] ** 0.5 + 4.0
    for value, wanted, plain, length in zip(got, exact, eager, (1.0, *shortest), strict=True):
        assert_within_budget(value, wanted, plain, upstream / length)


def _shortest(vectors: Tensor) -> float:
    return float(vectors.double().norm(dim=1).min()) if len(vectors) else 1.0
