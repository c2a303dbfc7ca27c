"""Random shapes, dtypes, strides, masks and metrics against the oracle and the textbook."""

from __future__ import annotations

import oracle
import strategies
import textbook
import torch
from backends import available
from budget import assert_within_budget
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import vqkernels as vq


@strategies.relaxed
@given(
    inputs=strategies.inputs(),
    metric=st.sampled_from(["l2", "cosine"]),
    estimator=st.sampled_from(["straight_through", "rotation"]),
    backend=st.sampled_from(available()),
    data=st.data(),
)
def test_any_step_agrees_with_oracle_and_textbook(
    inputs: tuple[Tensor, Tensor, int, Tensor | None],
    metric: str,
    estimator: str,
    backend: str,
    data: st.DataObject,
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
    gradient = data.draw(strategies.upstream(out.quantized))
    torch.autograd.backward([out.quantized, out.loss], [gradient, None])
    gradient_rows = gradient.movedim(channel, -1).reshape(rows.shape)

    def truth(dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [value.detach().clone() for value in (rows, codebook)]
        if dtype == torch.float64:
            leaves = [value.double() for value in leaves]
        leaves = [value.requires_grad_() for value in leaves]
        step = textbook.quantize(
            *(value.to(dtype) for value in leaves), mask=keep, indices=indices, **options
        )
        total = (step.quantized * gradient_rows.to(dtype)).sum() + step.loss
        return step.loss.detach(), *torch.autograd.grad(total, leaves)

    exact, eager = truth(torch.float64), truth(torch.float32)
    got = out.loss.detach(), leaf.grad.movedim(channel, -1).reshape(rows.shape), codes.grad
    shortest = [_shortest(value) if metric == "cosine" else 1.0 for value in (rows, codebook)]
    # Upstream plus both loss terms, projected to the tangent and divided by the length.
    upstream = float(gradient_rows.float().norm(dim=1).max()) + 4.0 if len(rows) else 0.0
    for value, wanted, plain, length in zip(got, exact, eager, (1.0, *shortest), strict=True):
        assert_within_budget(value, wanted, plain, upstream / length)


def _shortest(vectors: Tensor) -> float:
    return float(vectors.double().norm(dim=1).min()) if len(vectors) else 1.0
