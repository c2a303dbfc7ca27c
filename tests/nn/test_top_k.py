"""assign=TopK(k): the k nearest codes as one step."""

from __future__ import annotations

from typing import Any

import cases
import oracle
import pytest
import textbook
import torch
from budget import assert_within_budget
from modules import UPDATES, assert_same_state, batches, quantizer, snapshot, train
from torch import Tensor

import vqkernels as vq

FORMS: dict[str, dict[str, Any]] = {
    "l2": {},
    "cosine": {"metric": "cosine"},
    "rotation": {"estimator": "rotation"},
}


def _expected(
    module: vq.nn.VectorQuantizer, x: Tensor, upstream: Tensor, mask: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """(quantized (N, D, k), loss, gradient of x) by the textbook, row by row and code by code."""
    k = upstream.shape[-1]
    codes = module.codebook.detach()
    indices = oracle.nearest_codes(x.detach(), codes, k, module.metric)[0]
    leaf = x.detach().to(dtype).requires_grad_()
    step = textbook.quantize(
        leaf.repeat_interleave(k, dim=0),
        codes.to(dtype),
        commitment_weight=module.commitment_weight,
        codebook_weight=0.0,
        estimator=module.estimator,
        metric=module.metric,
        mask=mask.repeat_interleave(k),
        indices=torch.from_numpy(indices).reshape(-1),
    )
    quantized = step.quantized.reshape(len(x), k, -1).movedim(1, -1)
    torch.autograd.backward([quantized, step.loss], [upstream.to(dtype), None])
    assert leaf.grad is not None
    return quantized.detach(), step.loss.detach(), leaf.grad


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_values_and_gradients_agree_with_the_textbook(form: dict[str, Any], backend: str) -> None:
    module = quantizer(assign=vq.TopK(3), update=None, init="normal", backend=backend, **form)
    (x,) = batches(1)
    mask = torch.arange(64) % 4 != 1
    upstream = torch.randn(64, 6, 3, generator=cases.generator(5))
    leaf = x.clone().requires_grad_()
    out = module(leaf, mask)
    torch.autograd.backward([out.quantized, out.loss], [upstream, None])
    exact, eager = (
        _expected(module, x, upstream, mask, dtype) for dtype in (torch.float64, torch.float32)
    )
    found = (out.quantized.detach(), out.loss.detach(), leaf.grad)
    size = float(upstream.abs().max())
    for got, wanted, plain in zip(found, exact, eager, strict=True):
        assert_within_budget(got, wanted, plain, intermediate=size)


@pytest.mark.parametrize("layout", ["NCHW", "channels last", "BTD", "permuted"])
def test_shapes_and_decode(layout: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows)
    module = quantizer(
        k=11, init=codebook, update=None, assign=vq.TopK(4), channel_dim=channel_dim
    ).eval()
    out = module(x)
    positions = x.movedim(channel_dim, -1).shape[:-1]
    assert out.quantized.shape == (*x.shape, 4)
    assert out.indices.shape == (*positions, 4)
    assert torch.equal(module.encode(x), out.indices)
    assert torch.equal(module.decode(out.indices), out.quantized)
    assert torch.equal(module.decode(out.indices[..., :1]), out.quantized[..., :1])
    expected = vq.nearest_codes(x, codebook, 4, channel_dim=channel_dim)
    assert torch.equal(out.indices, expected.indices)


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_the_codebook_learns_from_the_nearest_alone(update: Any, metric: str) -> None:
    """The same state as without the option, bit for bit; Gradient codebooks get more gradient."""
    options = {"update": update, "metric": metric}
    plain, module = quantizer(**options), quantizer(assign=vq.TopK(3), **options)
    mask = torch.arange(64) % 5 != 0
    for out, other in zip(
        train(module, batches(5), mask=mask), train(plain, batches(5), mask=mask), strict=True
    ):
        assert torch.equal(out.indices[..., 0], other.indices)
        assert torch.equal(out.quantized[..., 0], other.quantized)
        assert torch.equal(out.usage.counts, other.usage.counts)
    assert_same_state(module, snapshot(plain))


def test_masked_positions_pass_and_nonfinite_rows_show() -> None:
    module = quantizer(assign=vq.TopK(2), init="normal")
    (x,) = batches(1)
    x[3], x[7] = torch.nan, torch.inf
    mask = torch.arange(64) != 7
    out = module(x, mask)
    assert torch.equal(out.quantized[7], x[7][:, None].expand(-1, 2))
    assert out.indices[7].tolist() == [-1, -1]
    assert out.indices[3].tolist() == [0, 0]
    assert out.quantized[3].isnan().all()
    assert out.usage.counts.sum() == 62
    assert out.loss.isnan()


def test_decode_refuses_indices_without_the_axis() -> None:
    module = quantizer(assign=vq.TopK(2), init="normal")
    with pytest.raises(
        ValueError, match=r"indices must have shape \(\*positions, k\), got \(4,\)"
    ):
        module.decode(torch.zeros(4, dtype=torch.int64))
