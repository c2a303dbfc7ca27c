"""GroupedVQ is its quantizers on parts of the channels, and nothing more."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
from modules import UPDATES, K, assert_same_state, made, make_optimizer, quantizer, snapshot, train
from torch import Tensor, nn

import vqkernels as vq

GROUPS, PART = 3, 4
SHAPES = {
    "BD": ((40, 12), 1),
    "BDT": ((3, 12, 15), 1),
    "BDHW": ((3, 12, 4, 4), 1),
    "BDTHW": ((2, 12, 2, 3, 4), 1),
    "BTD": ((3, 15, 12), -1),
    "BDT from the end": ((3, 12, 15), -2),
}
shapes = pytest.mark.parametrize("shape", SHAPES)
all_updates = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
both = pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
kinds = pytest.mark.parametrize("levels", [None, 2], ids=["plain", "residual"])


def _make(levels: int | None = None, **options: Any) -> Callable[[], nn.Module]:
    make = made(d=PART, **options)
    return make if levels is None else lambda: vq.nn.ResidualVQ(make, levels)


def _grouped(shared: bool = False, **options: Any) -> vq.nn.GroupedVQ:
    return vq.nn.GroupedVQ(_make(**options), GROUPS, shared=shared)


def _batches(count: int, shape: str = "BD") -> list[Tensor]:
    g = cases.generator(5)
    return [torch.randn(SHAPES[shape][0], generator=g) for _ in range(count)]


def _backward(out: vq.VQOutput, x: Tensor, module: nn.Module) -> list[Tensor]:
    total = out.quantized.square().sum() + 3.0 * out.loss
    inputs = [x, *module.parameters()]
    return list(torch.autograd.grad(total, inputs, materialize_grads=True))


@kinds
@all_updates
def test_it_equals_separate_quantizers_bit_for_bit(
    update: vq.EMA | vq.Gradient | None, levels: int | None
) -> None:
    """With k-means, moves and revival: outputs, gradients and every bit of the state."""
    module = _grouped(update=update, levels=levels)
    separate = copy.deepcopy(module.quantizers)
    for x in _batches(4, "BDHW"):
        x.requires_grad_()
        out = module(x)
        outs = [q(part) for q, part in zip(separate, x.chunk(GROUPS, dim=1), strict=True)]
        assert torch.equal(out.quantized, torch.cat([o.quantized for o in outs], dim=1))
        assert torch.equal(out.indices, torch.stack([o.indices for o in outs], dim=3))
        assert torch.equal(out.loss, torch.stack([o.loss for o in outs]).mean())
        assert torch.equal(out.usage.counts, torch.stack([o.usage.counts for o in outs]))
        assert torch.equal(out.usage.mse, torch.stack([o.usage.mse for o in outs]))
        joined = vq.VQOutput(
            torch.cat([o.quantized for o in outs], dim=1),
            out.indices,
            torch.stack([o.loss for o in outs]).mean(),
            out.usage,
        )
        for mine, theirs in zip(
            _backward(out, x, module), _backward(joined, x, separate), strict=True
        ):
            assert torch.equal(mine, theirs)
    assert_same_state(module.quantizers, snapshot(separate))


@shapes
@kinds
def test_shared_equals_one_quantizer_on_the_stacked_parts(levels: int | None, shape: str) -> None:
    channel = SHAPES[shape][1]
    module = _grouped(shared=True, channel_dim=channel, levels=levels)
    (only,) = copy.deepcopy(module.quantizers)
    for x in _batches(4, shape):
        x.requires_grad_()
        out = module(x)
        # The parts are more positions: at the channels' place, before them or after them.
        place = channel % x.ndim
        stacked = torch.stack(x.chunk(GROUPS, dim=place), dim=place + (channel > 0))
        expected = only(stacked.contiguous())
        parts = expected.quantized.unbind(place + (channel > 0))
        assert torch.equal(out.quantized, torch.cat(parts, dim=place))
        assert torch.equal(out.indices, expected.indices.movedim(place, x.ndim - 1))
        assert torch.equal(out.loss, expected.loss)
        assert torch.equal(out.usage.counts, expected.usage.counts)
        joined = vq.VQOutput(torch.cat(parts, dim=place), out.indices, expected.loss, out.usage)
        for mine, theirs in zip(
            _backward(out, x, module), _backward(joined, x, only), strict=True
        ):
            assert torch.equal(mine, theirs)
    assert_same_state(module.quantizers[0], snapshot(only))


@both
@shapes
@kinds
def test_indices_have_the_groups_behind_the_positions(
    levels: int | None, shape: str, shared: bool
) -> None:
    channel = SHAPES[shape][1]
    module = _grouped(shared, channel_dim=channel, levels=levels)
    for x in _batches(2, shape):
        out = module(x)
        positions = x.movedim(channel, -1).shape[:-1]
        assert out.indices.shape == (*positions, GROUPS, *([levels] if levels else []))
        assert torch.equal(module.encode(x), out.indices)
        assert torch.equal(module.decode(out.indices), out.quantized)
        for group, part in enumerate(x.chunk(GROUPS, dim=channel)):
            own = module.quantizers[0 if shared else group]
            assert torch.equal(out.indices.select(len(positions), group), own.encode(part))


def test_the_first_levels_of_all_groups_are_a_coarser_description() -> None:
    module = _grouped(levels=2)
    (x,) = _batches(1)
    indices = module(x).indices
    first = module.decode(indices[..., :1])
    assert torch.equal(
        first,
        torch.cat(
            [q.decode(indices[:, g, :1]) for g, q in enumerate(module.quantizers)],
            dim=1,
        ),
    )
    assert (x - first).square().mean() > (x - module.decode(indices)).square().mean()


def test_codebooks_of_unequal_size_count_to_the_largest() -> None:
    module = vq.nn.GroupedVQ([quantizer(k=k, d=PART, init="normal") for k in (5, 16, 9)])
    (x,) = _batches(1)
    out = module(x)
    assert out.usage.counts.shape == (GROUPS, 16)
    for group in range(GROUPS):
        counts = torch.bincount(out.indices[:, group], minlength=16)
        assert torch.equal(out.usage.counts[group], counts)


def test_a_row_that_is_not_finite_concerns_its_own_part() -> None:
    module = _grouped(init="normal")
    (x,) = _batches(1)
    clean = copy.deepcopy(module)(x)
    x[7, PART] = torch.nan
    out = module(x)
    assert out.quantized[7].isnan().tolist() == [False] * PART + [True] * PART + [False] * PART
    assert torch.equal(out.indices[7], clean.indices[7] * torch.tensor([1, 0, 1]))
    assert out.usage.counts.sum(dim=1).tolist() == [40, 39, 40]


class _Watched(vq.nn.VectorQuantizer):
    seen: list[Tensor]

    def _step(self, x: Tensor, mask: Tensor | None) -> Any:
        self.seen.append(x)
        return super()._step(x, mask)


@both
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_parts_are_views_of_x(layout: torch.memory_format, shared: bool) -> None:
    seen: list[Tensor] = []

    def make() -> vq.nn.VectorQuantizer:
        module = _Watched(K, PART)
        module.seen = seen
        return module

    x = _batches(1, "BDHW")[0].to(memory_format=layout)
    out = vq.nn.GroupedVQ(make, GROUPS, shared=shared)(x)
    assert len(seen) == (1 if shared else GROUPS)
    for part in seen:
        assert part.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert out.quantized.stride() == x.stride()


def test_eval_flush_and_leaving_training_mode_reach_every_group() -> None:
    left, flushed = (_grouped(levels=2) for _ in range(2))
    for module in (left, flushed):
        train(module, _batches(2))
    flushed.flush()
    nn.Sequential(left).eval()
    assert_same_state(left, snapshot(flushed))
    before = snapshot(left)
    left(_batches(1)[0])
    left.encode(_batches(1)[0])
    assert_same_state(left, before)


def test_init_codebook_initialises_every_group() -> None:
    module, stepped = _grouped(), _grouped()
    (x,) = _batches(1)
    mask = torch.arange(40) % 3 != 0
    module.init_codebook(x, mask)
    stepped(x, mask)
    for mine, theirs in zip(module.quantizers, stepped.quantizers, strict=True):
        assert mine.initialised == 1
        assert torch.equal(mine.codebook, theirs.codebook)


@all_updates
def test_k_plus_m_steps_equal_k_steps_save_load_m_steps(
    update: vq.EMA | vq.Gradient | None,
) -> None:
    xs = _batches(5)
    whole, first = (_grouped(update=update) for _ in range(2))
    train(whole, xs, make_optimizer(whole))
    optimizer = make_optimizer(first)
    train(first, xs[:2], optimizer)
    second = vq.nn.GroupedVQ(lambda: quantizer(9, d=PART, update=update), GROUPS)
    second.load_state_dict(first.state_dict(), strict=True)
    resumed = make_optimizer(second)
    if resumed is not None and optimizer is not None:
        resumed.load_state_dict(optimizer.state_dict())
    train(second, xs[2:], resumed)
    assert_same_state(second, snapshot(whole))


def _different(**changed: Any) -> Callable[[], vq.nn.VectorQuantizer]:
    options = iter([{}, changed])
    return lambda: quantizer(**next(options))


def _residual(levels: int) -> vq.nn.ResidualVQ:
    return vq.nn.ResidualVQ(quantizer, levels)


ONE = quantizer()
CONSTRUCTORS: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((3, 2), TypeError, "make must be callable or a sequence of quantizers, got 3"),
    (
        (ONE, 2),
        TypeError,
        "make must be a function that returns a new Quantizer, got a module, VectorQuantizer",
    ),
    ((quantizer, 0), ValueError, "groups must be at least 1, got 0"),
    (
        (lambda: quantizer(assign=vq.TopK(2)), 2),
        ValueError,
        "make must return quantizers without assign=TopK(...) for GroupedVQ, got TopK(k=2)",
    ),
    (([ONE], 2), ValueError, "make must hold 2 quantizers, got 1"),
    ((quantizer,), TypeError, "groups must be an integer, got None"),
    ((quantizer, True), TypeError, "groups must be an integer, got True"),
    ((lambda: nn.Linear(2, 2), 2), TypeError, "make must return a Quantizer, got Linear"),
    (
        (_different(d=5), 2),
        ValueError,
        "make must return quantizers with equal embedding_dim, got 6 and 5",
    ),
    (
        (_different(channel_dim=-1), 2),
        ValueError,
        "make must return quantizers with equal channel_dim, got 1 and -1",
    ),
    (
        (iter([_residual(2), _residual(3)]).__next__, 2),
        ValueError,
        "make must return quantizers with equal codes per vector, got (2,) and (3,)",
    ),
    (
        (iter([quantizer(), _residual(1)]).__next__, 2),
        ValueError,
        "make must return quantizers with equal codes per vector, got () and (1,)",
    ),
    (
        ([vq.nn.GroupedVQ(quantizer, 2, shared=True), vq.nn.GroupedVQ(quantizer, 2)],),
        ValueError,
        "make must return quantizers with equal codebooks per vector, got () and (2,)",
    ),
    (
        (lambda: ONE, 2),
        ValueError,
        "make must give every part a new module, got one twice",
    ),
    (
        (lambda: vq.nn.Projected(ONE, 8), 2),
        ValueError,
        "make must give every part a new module, got one twice",
    ),
]


@pytest.mark.parametrize(("arguments", "kind", "message"), CONSTRUCTORS)
def test_the_constructor_refuses(
    arguments: tuple[Any, ...], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        vq.nn.GroupedVQ(*arguments)


def test_all_groups_are_checked_before_one_moves_behind_projections_too() -> None:
    good, bad = (vq.nn.Projected(quantizer(init="normal"), 8) for _ in range(2))
    module = vq.nn.GroupedVQ([good, bad])
    module(torch.randn(5, 16))
    bad.quantizer.backend = "nonsense"
    state = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match="backend must be one of"):
        module(torch.randn(5, 16))
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_the_constructor_refuses_a_number_for_shared() -> None:
    with pytest.raises(TypeError, match=r"^shared must be a bool, got 1$"):
        vq.nn.GroupedVQ(quantizer, 2, shared=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(3,), (5, 2), (5, 4), ()])
def test_decode_refuses_another_number_of_groups(shape: tuple[int, ...]) -> None:
    message = re.escape(f"indices must have shape (*positions, 3), got {shape}")
    with pytest.raises(ValueError, match=f"^{message}$"):
        _grouped().decode(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(ValueError, match=re.escape("indices must have shape (*positions, 3, lev")):
        _grouped(levels=2).decode(torch.zeros(shape, dtype=torch.int64))


def test_the_width_is_that_of_all_groups() -> None:
    with pytest.raises(ValueError, match=r"x must have size 12 in dimension 1 .*channel_dim=-1\?"):
        _grouped()(torch.zeros(2, 5, 12))


@both
def test_a_refused_training_forward_leaves_every_group_as_it_was(shared: bool) -> None:
    module = _grouped(shared)
    train(module, _batches(2))
    before = snapshot(module)
    (x,) = _batches(1)
    for bad, mask in ((x[:, :8], None), (x, x > 0), (x.long(), None)):
        with pytest.raises((TypeError, ValueError)):
            module(bad, mask)
        assert_same_state(module, before)


def test_what_only_the_last_group_refuses_is_refused_before_the_first_moves() -> None:
    module = _grouped()
    train(module, _batches(2))
    before = snapshot(module)
    module.quantizers[-1].codebook = torch.zeros(K, PART + 1)
    with pytest.raises(ValueError, match="codebook must have shape"):
        module(_batches(1)[0])
    for name, value in module.quantizers[0].state_dict().items():
        assert torch.equal(value, before[f"quantizers.0.{name}"])
