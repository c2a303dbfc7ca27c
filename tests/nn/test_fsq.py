"""nn.FSQ: the module around the op, its state, and what it is composed with."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import cases
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import vqkernels as vq

LEVELS = (8, 5, 5, 5)
D, K = len(LEVELS), math.prod(LEVELS)
OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "symmetric": {"preserve_symmetry": True},
    "clamp": {"bound": "clamp"},
}
options_each = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return 1.5 * torch.randn(*shape, generator=cases.generator(seed))


def preimages(module: vq.nn.FSQ) -> Tensor:
    """(K, D) x well inside every code's cell, in the order of the indices."""
    counts = torch.tensor(module.levels).double()
    codes = module.decode(torch.arange(module.num_embeddings)).double()
    if module.preserve_symmetry:
        inside, shift = codes, torch.zeros_like(counts)
    else:
        shift = torch.where(counts % 2 == 0, 0.5, 0.0)
        reach = (counts - 1) * 1.001 / 2
        inside, shift = (codes * (counts // 2) + shift) / reach, shift / reach
    if module.bound == "clamp":
        return (inside - shift).float()
    return (inside.clamp(-0.99, 0.99).atanh() - shift.atanh()).float()


@options_each
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_every_code_is_reached_and_read_back(
    dtype: torch.dtype, options: dict[str, Any], backend: str
) -> None:
    """In bfloat16 too, where arithmetic in x's dtype reaches half of the codes."""
    module = vq.nn.FSQ(LEVELS, backend=backend, **options)
    x = preimages(module).to(dtype)
    out = module(x)
    assert torch.equal(out.indices, torch.arange(K))
    assert torch.equal(module.encode(x), out.indices)
    assert out.quantized.dtype == dtype
    assert torch.equal(out.quantized, module.decode(out.indices).to(dtype))
    assert torch.equal(out.usage.counts, torch.ones(K, dtype=torch.int64))
    assert out.usage.active == K
    assert out.usage.perplexity.item() == pytest.approx(K, rel=1e-5)


@options_each
def test_quantized_is_a_code_and_stays_one(options: dict[str, Any]) -> None:
    """Codes of symmetric levels are the middle of their own cell under the clamp."""
    module = vq.nn.FSQ(LEVELS, **options)
    out = module(vectors(2000, D))
    assert torch.equal(module.decode(out.indices), out.quantized)
    assert out.loss == 0.0
    if module.preserve_symmetry:
        again = vq.nn.FSQ(LEVELS, preserve_symmetry=True, bound="clamp")(out.quantized)
        assert torch.equal(again.indices, out.indices)
        assert again.usage.mse < 1e-12


@pytest.mark.parametrize(("shape", "channel_dim"), [((2, D, 3, 5), 1), ((2, 15, D), -1)])
def test_indices_have_the_positions_of_x(shape: tuple[int, ...], channel_dim: int) -> None:
    module = vq.nn.FSQ(LEVELS, channel_dim=channel_dim)
    x = vectors(*shape)
    out = module(x)
    positions = x.movedim(channel_dim, -1).shape[:-1]
    assert out.indices.shape == positions
    assert torch.equal(module.decode(out.indices), out.quantized)
    flat = vq.nn.FSQ(LEVELS)(x.movedim(channel_dim, -1).reshape(-1, D))
    assert torch.equal(flat.indices, out.indices.reshape(-1))


def test_training_eval_and_precision_of_the_module_change_nothing() -> None:
    module = vq.nn.FSQ(LEVELS)
    x = vectors(500, D)
    out = module(x)
    assert torch.equal(module.eval()(x).indices, out.indices)
    assert torch.equal(module.half()(x).indices, out.indices)
    assert torch.equal(module.bfloat16()(x).quantized, out.quantized)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = module(x)
    assert torch.equal(inside.indices, out.indices)
    assert torch.equal(inside.quantized, out.quantized)


def test_it_holds_no_state() -> None:
    module = vq.nn.FSQ(LEVELS)
    assert not module.state_dict()
    assert not list(module.buffers())
    module.flush()
    module.init_codebook(vectors(3, D))
    x = vectors(50, D)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x).indices, module(x).indices)


def test_masked_positions_pass_through(backend: str) -> None:
    module = vq.nn.FSQ(LEVELS, channel_dim=-1, backend=backend)
    x = vectors(3, 20, D).requires_grad_()
    mask = vq.mask_from_lengths(torch.tensor([20, 7, 0]), 20)
    out, whole = module(x, mask), module(x)
    assert torch.equal(out.indices, torch.where(mask, whole.indices, -1))
    assert torch.equal(out.quantized, torch.where(mask[..., None], whole.quantized, x))
    assert out.usage.counts.sum() == mask.sum()
    (grad,) = torch.autograd.grad(out.quantized.sum(), x)
    (unmasked,) = torch.autograd.grad(whole.quantized.sum(), x)
    assert torch.equal(grad, torch.where(mask[..., None], unmasked, 1.0))


def test_usage_of_more_codes_than_are_counted() -> None:
    """Nothing of K entries is allocated: there are 2^60."""
    module = vq.nn.FSQ((64,) * 10)
    out = module(vectors(100, 10))
    assert out.indices.max() > 2**31
    assert torch.equal(module.decode(out.indices), out.quantized)
    assert out.usage.counts.shape == (0,)
    assert out.usage.perplexity.isnan()
    assert out.usage.active == -1
    assert out.usage.active_ceiling.isnan()
    assert 0.0 < out.usage.mse < 1e-3
    groups = vq.nn.GroupedVQ([vq.nn.FSQ((64,) * 10), vq.nn.FSQ((4,) * 10)])
    usage = groups(vectors(100, 20)).usage
    assert usage.counts.shape == (2, 0)
    assert usage.active.tolist() == [-1, -1]


def test_the_largest_table_of_counts() -> None:
    at, beyond = vq.nn.FSQ((1024, 1024)), vq.nn.FSQ((1024, 1025))
    x = vectors(10, 2)
    assert at(x).usage.counts.shape == (1 << 20,)
    assert at(x).usage.counts.sum() == 10
    assert beyond(x).usage.counts.shape == (0,)


def test_projected() -> None:
    """The vectors are those of plain torch around it, the gradients too."""
    module = vq.nn.Projected(vq.nn.FSQ(LEVELS, channel_dim=-1), 12)
    x = vectors(4, 9, 12).requires_grad_()
    out = module(x)
    z = module.project_in(x)
    inner = module.quantizer(z)
    assert torch.equal(out.indices, inner.indices)
    expected = module.project_out(inner.quantized)
    assert torch.equal(out.quantized, expected)
    for got, wanted in zip(
        torch.autograd.grad(out.quantized.square().sum(), [x, *module.parameters()]),
        torch.autograd.grad(expected.square().sum(), [x, *module.parameters()]),
        strict=True,
    ):
        assert torch.equal(got, wanted)
    decoded = module.decode(out.indices)
    assert torch.allclose(decoded, out.quantized, atol=1e-6)  # one product, in another shape
    assert list(module.state_dict()) == [
        *("project_in.weight", "project_in.bias", "project_out.weight", "project_out.bias")
    ]


@pytest.mark.parametrize("shared", [False, True])
def test_grouped(shared: bool) -> None:
    module = vq.nn.GroupedVQ(lambda: vq.nn.FSQ(LEVELS), 2, shared=shared)
    x = vectors(3, 2 * D, 4, 4)
    out = module(x)
    assert out.indices.shape == (3, 4, 4, 2)
    alone = vq.nn.FSQ(LEVELS)
    for group, part in enumerate(x.split(D, dim=1)):
        assert torch.equal(out.indices[..., group], alone(part).indices)
    assert torch.equal(module.decode(out.indices), out.quantized)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
def test_it_compiles_as_one_graph(compiler: str) -> None:
    torch._dynamo.reset()
    module = vq.nn.FSQ(LEVELS)
    compiled = torch.compile(module, fullgraph=True, backend=compiler, dynamic=True)
    for n in (100, 37):
        x, other = (vectors(n, D).requires_grad_() for _ in range(2))
        out, expected = compiled(x), module(other)
        assert torch.equal(out.quantized, expected.quantized)
        assert torch.equal(out.indices, expected.indices)
        assert torch.equal(out.usage.counts, expected.usage.counts)
        out.quantized.square().sum().backward()
        expected.quantized.square().sum().backward()
        assert torch.equal(x.grad, other.grad)
    torch._dynamo.reset()


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_region_computes_the_same(reentrant: bool) -> None:
    module = vq.nn.Projected(vq.nn.FSQ(LEVELS), 6)
    results = []
    for call in (module, lambda x: checkpoint(module, x, use_reentrant=reentrant)):
        x = vectors(50, 6).requires_grad_()
        quantized = call(x)[0]
        quantized.square().sum().backward()
        results.append((quantized, x.grad))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (8, {}, TypeError, "levels must be a sequence of integers, got 8"),
    ("855", {}, TypeError, "levels must be a sequence of integers, got '855'"),
    ((), {}, ValueError, "levels must hold at least one number, got none"),
    ((8, 5.0), {}, TypeError, "levels[1] must be an integer, got 5.0"),
    ((8, 1), {}, ValueError, "levels[1] must be at least 2, got 1"),
    ((2, 8), {}, ValueError, "levels[0] must be at least 3 without preserve_symmetry=True, got 2"),
    ((65537,), {}, ValueError, "levels[0] must be at most 65536, got 65537"),
    ((65536,) * 4, {}, ValueError, f"levels must have a product of at most 2^62, got {2**64}"),
    ((8, 5), {"bound": "relu"}, ValueError, "bound must be one of 'tanh', 'clamp', got 'relu'"),
    ((8, 5), {"preserve_symmetry": 1}, TypeError, "preserve_symmetry must be a bool, got 1"),
    ((8, 5), {"channel_dim": 1.0}, TypeError, "channel_dim must be an integer, got 1.0"),
    (
        (8, 5),
        {"backend": "cuda"},
        ValueError,
        "backend must be one of 'native', 'triton', 'reference', got 'cuda'",
    ),
    (
        [np.int64(65536)] * 4,
        {},
        ValueError,
        f"levels must have a product of at most 2^62, got {2**64}",
    ),
]


@pytest.mark.parametrize(
    ("levels", "options", "kind", "message"), BAD, ids=[f"{b[0]} {b[3]}" for b in BAD]
)
def test_bad_arguments(
    levels: Any, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        vq.nn.FSQ(levels, **options)
    assert str(caught.value) == message


def test_bad_calls() -> None:
    module = vq.nn.FSQ(LEVELS)
    with pytest.raises(ValueError, match="x must have size 4 in dimension 1"):
        module(vectors(3, 5))
    with pytest.raises(TypeError, match="mask must be"):
        module(vectors(3, 4), torch.ones(3))
    with pytest.raises(ValueError, match=r"indices must be in \[-1, 999\], got 1000"):
        module.decode(torch.tensor([1000]))
    with pytest.raises(ValueError, match=r"^indices must have at least 1 dimension"):
        module.decode(torch.tensor(1))


def test_two_levels_need_symmetry() -> None:
    module = vq.nn.FSQ((2,) * 62, preserve_symmetry=True)
    x = vectors(200, 62)
    out = module(x)
    assert module.num_embeddings == 2**62
    assert torch.equal(out.quantized, torch.where(x >= 0, 1.0, -1.0))
    bits = (x >= 0).long() << torch.arange(62)
    assert torch.equal(out.indices, bits.sum(dim=1))
