"""regularize=(...): what a training forward adds to the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from modules import assert_same_state, batches, quantizer, snapshot
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import vqkernels as vq

ENTROPY, ORTHOGONAL = vq.Entropy(0.3, temperature=2.0, diversity=0.5), vq.Orthogonal(0.7)
ACTIVE = vq.Orthogonal(0.7, active_only=True)
MASK = torch.arange(64) % 4 != 1


def _gradients(loss: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("assign", [None, vq.TopK(2), vq.Sample(2.0)], ids=str)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_the_loss_is_the_sum_of_its_parts(metric: str, assign: Any) -> None:
    options = {"metric": metric, "assign": assign, "update": vq.Gradient(), "init": "normal"}
    module = quantizer(regularize=(ENTROPY, ORTHOGONAL, ACTIVE), **options)
    plain = quantizer(**options)
    (x,) = batches(1)
    x[1] = torch.nan  # masked
    x.requires_grad_()
    out, other = module(x, MASK), plain(x, MASK)
    assert torch.equal(out.indices, other.indices)

    codes = plain.codebook
    entropy = vq.code_entropy(x, codes, temperature=2.0, metric=metric, mask=MASK)
    parts = [
        other.loss,
        0.3 * (entropy.per_row - 0.5 * entropy.usage),
        0.7 * vq.code_orthogonality(codes),
        0.7 * vq.code_orthogonality(codes, other.usage.counts),
    ]
    expected = torch.stack(parts).sum()
    torch.testing.assert_close(out.loss, expected)
    got = _gradients(out.loss, x, module.codebook)
    for gradient, wanted in zip(got, _gradients(expected, x, codes), strict=True):
        assert gradient[MASK if len(gradient) == 64 else slice(None)].any()
        torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-7)


def test_entropy_reaches_x_whatever_updates_the_codebook() -> None:
    (x,) = batches(1)
    x.requires_grad_()
    for update in (vq.EMA(), None):
        module = quantizer(update=update, init="normal", regularize=(ENTROPY,))
        plain = quantizer(update=update, init="normal")
        entropy = vq.code_entropy(x, plain.codebook, temperature=2.0)
        more = 0.3 * (entropy.per_row - 0.5 * entropy.usage)
        (got,) = _gradients(module(x).loss, x)
        (wanted,) = _gradients(plain(x).loss + more, x)
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


def test_eval_mode_adds_nothing() -> None:
    options = {"update": vq.Gradient(), "init": "normal"}
    module = quantizer(regularize=(ENTROPY, ORTHOGONAL), **options).eval()
    (x,) = batches(1)
    assert torch.equal(module(x).loss, quantizer(**options).eval()(x).loss)


def test_a_fully_masked_batch_adds_the_orthogonality_of_the_codes_alone() -> None:
    module = quantizer(update=vq.Gradient(), init="normal", regularize=(ENTROPY, ORTHOGONAL))
    (x,) = batches(1)
    loss = module(x * torch.nan, torch.zeros(64, dtype=torch.bool)).loss
    torch.testing.assert_close(loss, 0.7 * vq.code_orthogonality(module.codebook))


@pytest.mark.parametrize("way", ["checkpoint", "compile"])
def test_other_ways_to_run_a_step_give_the_same_loss_and_gradients(way: str) -> None:
    torch._dynamo.reset()
    options = {"update": vq.Gradient(), "regularize": (ENTROPY, ACTIVE), "init": "normal"}
    eager, module = quantizer(**options), quantizer(**options)
    call: Any = torch.compile(module, backend="aot_eager", fullgraph=True)
    if way == "checkpoint":

        def call(x: Tensor) -> Any:
            return checkpoint(module, x, use_reentrant=False)

    for x in batches(3):
        x.requires_grad_()
        losses = call(x).loss, eager(x).loss
        assert torch.equal(*losses)
        got = _gradients(losses[0], x, module.codebook)
        for gradient, wanted in zip(got, _gradients(losses[1], x, eager.codebook), strict=True):
            assert torch.equal(gradient, wanted)
    assert_same_state(module, snapshot(eager))


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_a_residual_quantizer_adds_the_orthogonality_of_every_codebook(shared: bool) -> None:
    def make(*regularize: Any) -> vq.nn.ResidualVQ:
        torch.manual_seed(0)
        options: dict[str, Any] = {"update": vq.Gradient(), "init": "normal"}
        options["regularize"] = regularize
        return vq.nn.ResidualVQ(lambda: vq.nn.VectorQuantizer(16, 6, **options), 3, shared=shared)

    module, plain = make(ORTHOGONAL, ACTIVE), make()
    (x,) = batches(1)
    out, other = module(x), plain(x)
    counts = other.usage.counts.sum(dim=0, keepdim=True) if shared else other.usage.counts
    expected = other.loss
    for quantizer_, count in zip(plain.quantizers, counts, strict=True):
        expected = expected + 0.7 * vq.code_orthogonality(quantizer_.codebook)
        expected = expected + 0.7 * vq.code_orthogonality(quantizer_.codebook, count)
    torch.testing.assert_close(out.loss, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"assign": vq.TopK(2)}, r"with assign=None for ResidualVQ, got TopK\(k=2\)"),
        ({"assign": vq.Sample()}, r"with assign=None for ResidualVQ, got Sample\("),
        ({"regularize": (ENTROPY,)}, r"without Entropy for ResidualVQ, got regularize=\(Entropy"),
    ],
)
def test_a_residual_quantizer_refuses_what_its_op_does_not_do(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^make must return quantizers {message}"):
        vq.nn.ResidualVQ(lambda: quantizer(**options), 2)
