"""Projected is a linear map, a quantizer and a linear map, and nothing more."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
from budget import assert_within_budget
from modules import (
    KINDS,
    UPDATES,
    WIDTH,
    assert_same_state,
    made,
    make_optimizer,
    projected,
    quantizer,
    snapshot,
    train,
)
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import vqkernels as vq

CODE = 4
SHAPES = {
    "BD": ((40, WIDTH), 1),
    "BDT": ((3, WIDTH, 15), 1),
    "BDHW": ((3, WIDTH, 4, 4), 1),
    "BDTHW": ((2, WIDTH, 2, 3, 4), 1),
    "BTD": ((3, 15, WIDTH), -1),
}
shapes = pytest.mark.parametrize("shape", SHAPES)
all_updates = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)


def _projected(bias: bool = True, **options: Any) -> vq.nn.Projected:
    return projected(quantizer(d=CODE, **options), WIDTH, bias=bias)


def _nested(**options: Any) -> nn.Module:
    """Projected(GroupedVQ(ResidualVQ))."""
    return KINDS["nested"](**options)


def _batches(count: int, shape: str = "BD") -> list[Tensor]:
    g = cases.generator(6)
    return [torch.randn(SHAPES[shape][0], generator=g) for _ in range(count)]


@pytest.mark.parametrize(
    ("shape", "update", "bias"),
    [(shape, vq.EMA(), True) for shape in SHAPES]
    + [("BDHW", update, False) for update in UPDATES.values()],
)
def test_it_equals_its_three_parts_bit_for_bit(
    shape: str, update: vq.EMA | vq.Gradient | None, bias: bool
) -> None:
    channel = SHAPES[shape][1]
    module = _projected(bias, update=update, channel_dim=channel)
    parts = copy.deepcopy(module)
    for x in _batches(3, shape):
        x.requires_grad_()
        out = module(x)
        z = parts.project_in(x.movedim(channel, -1)).movedim(-1, channel)
        inner = parts.quantizer(z)
        y = parts.project_out(inner.quantized.movedim(channel, -1)).movedim(-1, channel)
        assert torch.equal(out.quantized, y)
        assert torch.equal(out.indices, inner.indices)
        assert torch.equal(out.usage.counts, inner.usage.counts)
        expected = vq.VQOutput(y, inner.indices, inner.loss, inner.usage)
        grads = [
            torch.autograd.grad(
                result.quantized.square().sum() + 3.0 * result.loss, [x, *owner.parameters()]
            )
            for result, owner in ((out, module), (expected, parts))
        ]
        for mine, theirs in zip(*grads, strict=True):
            assert torch.equal(mine, theirs)
    assert_same_state(module, snapshot(parts))


def _by_hand(
    x: Tensor, mask: Tensor, parameters: dict[str, Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """Two heads with trained codebooks, in plain torch: the total and the gradients."""
    leaves = {n: p.detach().to(dtype).requires_grad_() for n, p in parameters.items()}
    x = x.detach().to(dtype).requires_grad_()
    z = x[mask] @ leaves["project_in.weight"].T + leaves["project_in.bias"]
    quantized, losses = [], []
    for group, part in enumerate(z.chunk(2, dim=1)):
        codes = leaves[f"quantizer.quantizers.{group}.codebook"]
        q = codes[torch.cdist(part.detach().double(), codes.detach().double()).argmin(dim=1)]
        quantized.append(part + (q - part).detach())
        losses.append(
            0.25 * (part - q.detach()).square().mean() + (part.detach() - q).square().mean()
        )
    y = torch.cat(quantized, dim=1) @ leaves["project_out.weight"].T + leaves["project_out.bias"]
    total = y.square().sum() + (losses[0] + losses[1]) / 2 + 2.0 * x[~mask].sum()
    return [total.detach(), *torch.autograd.grad(total, [x, *leaves.values()])]


def test_gradients_are_those_of_the_composition_in_float64() -> None:
    module = KINDS["heads"](update=vq.Gradient(), init="normal")
    (x,) = _batches(1)
    mask = torch.arange(40) % 4 != 1
    parameters = dict(module.named_parameters())
    exact = _by_hand(x, mask, parameters, torch.float64)
    eager = _by_hand(x, mask, parameters, torch.float32)
    x.requires_grad_()
    out = module(x, mask)
    total = out.quantized[mask].square().sum() + out.loss + 2.0 * out.quantized[~mask].sum()
    got = [total.detach(), *torch.autograd.grad(total, [x, *parameters.values()])]
    for value, wanted, plain in zip(got, exact, eager, strict=True):
        # Sums of up to 40 terms, each at most as large as the largest value.
        assert_within_budget(value, wanted, plain, intermediate=float(wanted.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_under_autocast_indices_are_those_of_the_projection_s_output(
    dtype: torch.dtype, masked: bool
) -> None:
    module = _nested()
    train(module, _batches(2))
    module.eval()
    (x,) = _batches(1)
    x = x.to(dtype)
    mask = torch.arange(40) % 3 != 0 if masked else None
    seen: list[Tensor] = []
    module.project_in.register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x, mask)
        again = module.encode(x)
        decoded = module.decode(again)
    assert seen[0].dtype == torch.bfloat16
    expected = module.quantizer.encode(seen[0])
    assert torch.equal(again, module.quantizer.encode(seen[1]))
    valid = torch.ones(40, dtype=torch.bool) if mask is None else mask
    assert torch.equal(out.indices[valid], expected[valid])
    assert torch.equal(out.quantized[~valid], x[~valid])
    assert out.quantized.dtype == dtype
    assert torch.equal(out.quantized[valid], decoded[valid].to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_converts_the_projections_and_not_the_codebooks(dtype: torch.dtype) -> None:
    module = _nested().to(dtype)
    out = module(_batches(1)[0].to(dtype))
    assert out.quantized.dtype == module.project_in.weight.dtype == dtype
    for codebook in module.quantizer.state_dict().values():
        assert codebook.dtype in (torch.float32, torch.int64)
    decoded = module.decode(out.indices)
    assert decoded.dtype == dtype
    assert torch.equal(decoded, out.quantized)


def test_half_x_on_float32_weights_is_refused_before_any_state_moves() -> None:
    module = _projected()
    train(module, _batches(2))
    before = snapshot(module)
    with pytest.raises(RuntimeError, match="same dtype"):
        module(_batches(1)[0].half())
    assert_same_state(module, before)


@pytest.mark.parametrize("kind", ["projected", "heads", "shared heads", "nested"])
@shapes
def test_decode_reproduces_quantized_until_the_codebooks_move(shape: str, kind: str) -> None:
    module = KINDS[kind](channel_dim=SHAPES[shape][1])
    for x in _batches(2, shape):
        out = module(x)
        assert torch.equal(module.encode(x), out.indices)
        got, exact = module.decode(out.indices), out.quantized
        # Two products over the same 8 or fewer channels, perhaps added in another order.
        bound = 8 * torch.finfo(torch.float32).eps * 4 * exact.detach().abs().max()
        assert (got - exact).abs().max() <= bound


def test_a_masked_position_decodes_to_zero_and_a_missing_level_to_the_others() -> None:
    module = _nested()
    (x,) = _batches(1, "BDHW")
    mask = torch.arange(16).reshape(4, 4).expand(3, 4, 4) % 3 != 0
    indices = module(x, mask).indices
    decoded = module.decode(indices).movedim(1, -1)
    assert not decoded[~mask].any()
    assert decoded[mask].any(dim=-1).all()
    indices[..., 1:] = -1
    coarse = module.decode(indices)
    assert torch.equal(coarse, module.decode(indices[..., :1]))


def test_a_load_of_another_width_raises_and_changes_nothing() -> None:
    module = _projected()
    train(module, _batches(3))
    before = snapshot(module)
    other = projected(quantizer(3, d=CODE), WIDTH + 1)
    with pytest.raises(RuntimeError, match=r"project_in.weight must have shape \(4, 12\), got"):
        module.load_state_dict(other.state_dict())
    assert_same_state(module, before)


def test_the_state_has_the_keys_of_linear_modules() -> None:
    names = set(_projected(update=None).state_dict())
    linear = {f"project_{side}.{name}" for side in ("in", "out") for name in ("weight", "bias")}
    own = {f"quantizer.{name}" for name in quantizer(update=None).state_dict()}
    assert names == linear | own
    assert "project_in.bias" not in _projected(bias=False).state_dict()


@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle", "torch.save"])
@all_updates
def test_copies_of_a_nested_one_go_on_like_the_original(
    update: vq.EMA | vq.Gradient | None, how: str
) -> None:
    module = _nested(update=update)
    train(module, _batches(2), torch.optim.SGD(module.parameters(), lr=0.1))
    if how == "state_dict":
        copied = _nested(update=update, init="uniform")
        copied.load_state_dict(module.state_dict(), strict=True)
    elif how == "deepcopy":
        copied = copy.deepcopy(module)
    elif how == "pickle":
        copied = pickle.loads(pickle.dumps(module))
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        copied = torch.load(file, weights_only=False)
    results = [
        train(each, _batches(2), torch.optim.SGD(each.parameters(), lr=0.1))
        for each in (module, copied)
    ]
    for out, expected in zip(*results, strict=True):
        assert torch.equal(out.quantized, expected.quantized)
    assert_same_state(copied, snapshot(module))


@pytest.mark.parametrize("reentrant", [False, True])
@all_updates
def test_a_checkpointed_nested_one_computes_the_same(
    update: vq.EMA | vq.Gradient | None, reentrant: bool
) -> None:
    mask = torch.arange(40) % 3 != 0
    states = []
    for mode in (None, reentrant):
        module = _nested(update=update, estimator="rotation")
        optimizer = make_optimizer(module)
        assert optimizer is not None

        def region(x: Tensor, module: nn.Module = module) -> tuple[Tensor, Tensor]:
            out = module(x.tanh(), mask)
            return out.quantized, out.loss

        for x in _batches(4):
            x.requires_grad_()
            results = region(x) if mode is None else checkpoint(region, x, use_reentrant=mode)
            (results[0].square().sum() + results[1]).backward()
            optimizer.step()
            optimizer.zero_grad()
        states.append(snapshot(module))
    assert_same_state(module, states[0])


@pytest.mark.parametrize(
    ("kind", "options"),
    [("nested", {"init": "normal"}), ("shared heads", {"update": vq.Gradient()})],
    ids=["nested", "shared heads with k-means"],
)
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_with_lengths_equals_the_eager_one(
    kind: str, options: dict[str, Any]
) -> None:
    """In one graph, with revival, and no recompile for another length."""
    torch._dynamo.reset()
    eager, module = (KINDS[kind](**options) for _ in range(2))
    counter = CompileCounterWithBackend("aot_eager")

    def step(module: nn.Module, x: Tensor, lengths: Tensor) -> vq.VQOutput:
        out: vq.VQOutput = module(x, vq.mask_from_lengths(lengths, x.shape[2]))
        return out

    call: Callable[..., Any] = torch.compile(step, backend=counter, fullgraph=True)
    for number, size in enumerate((15, 17, 23)):
        g = cases.generator(number)
        leaves = [torch.randn(3, WIDTH, size, generator=g).requires_grad_()]
        leaves.append(leaves[0].detach().clone().requires_grad_())
        lengths = torch.tensor([size, 0, size // 2])
        outs = [step(eager, leaves[0], lengths), call(module, leaves[1], lengths)]
        for out in outs:
            (out.quantized.square().sum() + out.loss).backward()
        assert torch.equal(outs[0].quantized, outs[1].quantized)
        assert torch.equal(outs[0].indices, outs[1].indices)
        assert torch.equal(leaves[0].grad, leaves[1].grad)
        if number == 1:
            settled = counter.frame_count
    assert counter.frame_count == settled
    assert_same_state(module, snapshot(eager))
    torch._dynamo.reset()


def test_init_codebook_and_flush_reach_the_quantizer() -> None:
    module, stepped = _nested(), _nested()
    (x,) = _batches(1)
    mask = torch.arange(40) % 3 != 0
    module.init_codebook(torch.where(mask[:, None], x, torch.nan), mask)
    stepped(x, mask)
    for name, value in module.named_buffers():
        if name.endswith(("codebook", "initialised")):
            assert torch.equal(value, stepped.get_buffer(name)), name
    other = copy.deepcopy(stepped)
    stepped.flush()
    other.eval()
    assert_same_state(other, snapshot(stepped))


def test_the_constructor_refuses() -> None:
    bad: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (
            lambda: vq.nn.Projected(nn.Linear(2, 2), 4),  # type: ignore[arg-type]
            TypeError,
            "quantizer must be a quantizer of vqkernels.nn, got Linear",
        ),
        (
            lambda: vq.nn.Projected(quantizer(assign=vq.TopK(2)), 4),
            ValueError,
            "quantizer must be one without assign=TopK(...) for Projected, got TopK(k=2)",
        ),
        (
            lambda: vq.nn.Projected(made()(), 0),
            ValueError,
            "in_dim must be at least 1, got 0",
        ),
        (
            lambda: vq.nn.Projected(made()(), 4.0),  # type: ignore[arg-type]
            TypeError,
            "in_dim must be an integer, got 4.0",
        ),
        (
            lambda: vq.nn.Projected(made()(), 4, bias=None),  # type: ignore[arg-type]
            TypeError,
            "bias must be a bool, got None",
        ),
    ]
    for call, kind, message in bad:
        with pytest.raises(kind, match=f"^{re.escape(message)}$"):
            call()


def test_a_refused_training_forward_leaves_the_state_as_it_was() -> None:
    module = _nested()
    train(module, _batches(2))
    before = snapshot(module)
    (x,) = _batches(1)
    message = r"x must have size 12 in dimension 1 .*; did you mean channel_dim=-1\?$"
    with pytest.raises(ValueError, match=message):
        module(torch.zeros(2, 5, WIDTH))
    for bad, mask in ((x[:, :8], None), (x, x > 0), (x.long(), None)):
        with pytest.raises((TypeError, ValueError)):
            module(bad, mask)
    assert_same_state(module, before)
