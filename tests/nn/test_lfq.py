"""LFQ is a frozen quantizer with all codes of +-1 bits, without the codes."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re
from typing import Any

import pytest
import torch
from budget import assert_within_budget
from cases import generator
from modules import projected
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import vqkernels as vq

BITS = 7
ENTROPY = vq.Entropy(0.3, temperature=2.0, diversity=0.5)
LAYOUTS = {
    "BD": ((40, BITS), 1),
    "BDT": ((3, BITS, 15), 1),
    "BDHW": ((3, BITS, 4, 4), 1),
    "BTD": ((3, 15, BITS), -1),
    "THBD": ((3, 4, BITS, 5), -2),
}
either = pytest.mark.parametrize("spherical", [False, True], ids=["lfq", "bsq"])


def _all_codes(bits: int) -> Tensor:
    """The signs in the order of ``itertools.product``: the last channel changes fastest."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=bits)))


def _with_codebook(spherical: bool, **options: Any) -> vq.nn.VectorQuantizer:
    metric = "cosine" if spherical else "l2"
    codes = _all_codes(BITS)
    return vq.nn.VectorQuantizer(
        len(codes), BITS, init=codes, update=None, metric=metric, **options
    )


def _input(layout: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Normal x with a row of zeros and a negative zero, and a mask of its positions."""
    shape, channel = LAYOUTS[layout]
    g = generator(41)
    x = torch.randn(shape, generator=g).to(dtype)
    rows = x.movedim(channel, -1)
    mask = torch.rand(rows.shape[:-1], generator=g) < 0.8
    mask.view(-1)[:2] = True
    while rows.ndim > 2:
        rows = rows[0]
    rows[0] = 0.0
    rows[1, 2] = -0.0
    return x, mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
@pytest.mark.parametrize("layout", LAYOUTS)
@either
def test_a_step_is_that_of_the_codebook_of_all_codes(
    spherical: bool, layout: str, estimator: str, dtype: torch.dtype
) -> None:
    channel = LAYOUTS[layout][1]
    options: dict[str, Any] = {"estimator": estimator, "regularize": (ENTROPY,)}
    modules = (
        vq.nn.LFQ(BITS, spherical=spherical, channel_dim=channel, **options),
        _with_codebook(spherical, channel_dim=channel, **options),
    )
    x, some = _input(layout, dtype)
    upstream = torch.randn(x.shape, generator=generator(42)).to(dtype)
    for training, mask in itertools.product((True, False), (None, some)):
        outs, grads = [], []
        for module in modules:
            module.train(training)
            leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
            outs.append(module(leaf, mask))
            (grad,) = torch.autograd.grad(outs[-1][::2], leaf, [upstream, None])
            grads.append(grad)
        got, expected = outs
        assert torch.equal(got.quantized, expected.quantized)
        assert torch.equal(got.indices, expected.indices)
        assert torch.equal(got.usage.counts, expected.usage.counts)
        assert torch.equal(got.usage.mse, expected.usage.mse)
        torch.testing.assert_close(got.loss, expected.loss)
        torch.testing.assert_close(*grads)


@either
def test_rows_that_are_not_finite_get_index_0_and_nan_and_count_nowhere(spherical: bool) -> None:
    module = vq.nn.LFQ(BITS, spherical=spherical, regularize=())
    soft = vq.nn.LFQ(BITS, spherical=spherical, regularize=(ENTROPY,), commitment_weight=0.0)
    x, _ = _input("BD")
    kept = torch.ones(len(x), dtype=torch.bool)
    for row, value in ((4, torch.nan), (9, torch.inf), (11, -torch.inf)):
        x[row, 3] = value
        kept[row] = False
    out = module(x)
    assert not out.indices[~kept].any()
    assert out.quantized[~kept].isnan().all()
    assert torch.equal(module.encode(x), out.indices)
    assert out.loss.isnan()
    assert int(out.usage.counts.sum()) == int(kept.sum())
    alone = module(x[kept])
    assert torch.equal(out.indices[kept], alone.indices)
    # The entropies leave them out, so a mask of the others changes nothing but the error.
    x.requires_grad_()
    loss, wanted = soft(x, kept).loss, soft(x[kept]).loss
    torch.testing.assert_close(loss, wanted)
    (grad,) = torch.autograd.grad(loss, x)
    assert not grad[~kept].any()


def test_masked_rows_pass_through_and_count_nowhere() -> None:
    module = vq.nn.LFQ(BITS)
    x, mask = _input("BDT")
    x.movedim(1, -1)[~mask] = torch.nan
    x.requires_grad_()
    out = module(x, mask)
    rows = x.movedim(1, -1)
    assert (out.indices[~mask] == -1).all()
    assert out.quantized.movedim(1, -1)[~mask].isnan().all()
    packed = module(rows[mask])
    torch.testing.assert_close(out.loss, packed.loss)
    assert torch.equal(out.usage.counts, packed.usage.counts)
    (grad,) = torch.autograd.grad([out.quantized, out.loss], x, [torch.ones_like(x), None])
    assert (grad.movedim(1, -1)[~mask] == 1).all()
    nothing = module(x, torch.zeros_like(mask))
    assert float(nothing.loss.detach()) == 0.0


def _dense_entropy(
    x: Tensor, spherical: bool, temperature: float, dtype: torch.dtype
) -> list[Tensor]:
    leaf = x.to(dtype).requires_grad_()
    codes = _all_codes(x.shape[1]).to(dtype)
    rows = leaf
    if spherical:
        rows, codes = (torch.nn.functional.normalize(v, dim=1) for v in (leaf, codes))
    logits = rows @ codes.T * ((1.0 if spherical else 2.0) / temperature)
    p = logits.softmax(dim=1)
    per_row = torch.special.entr(p).sum(dim=1).mean()
    loss = 0.5 * (per_row - 0.7 * torch.special.entr(p.mean(dim=0)).sum())
    return [loss.detach(), *torch.autograd.grad(loss, leaf)]


@pytest.mark.parametrize("temperature", [0.3, 3.0])
@pytest.mark.parametrize("bits", [1, 2, 5, 10])
@either
def test_the_entropy_loss_is_as_near_to_float64_as_eager_torch(
    spherical: bool, bits: int, temperature: float
) -> None:
    option = vq.Entropy(0.5, temperature=temperature, diversity=0.7)
    module = vq.nn.LFQ(bits, spherical=spherical, commitment_weight=0.0, regularize=(option,))
    x = torch.randn(64, bits, generator=generator(43))
    leaf = x.clone().requires_grad_()
    loss = module(leaf).loss
    got = [loss.detach(), *torch.autograd.grad(loss, leaf)]
    exact = _dense_entropy(x, spherical, temperature, torch.float64)
    eager = _dense_entropy(x, spherical, temperature, torch.float32)
    # The two entropies are float32, each at most that of all bits.
    terms = (0.5 * bits * math.log(2.0), 0.0)
    for value, truth, plain, size in zip(got, exact, eager, terms, strict=True):
        assert_within_budget(value, truth, plain, size)


@either
def test_groups_of_bits_bound_the_usage_from_above(spherical: bool) -> None:
    g = generator(44)
    x = torch.randn(200, 4, generator=g).repeat(1, 3) + 0.3 * torch.randn(200, 12, generator=g)
    temperature = 0.1 if spherical else 1.0
    unit = torch.nn.functional.normalize(x, dim=1) if spherical else x

    def usage(group: int | None, rows: Tensor = x, **options: Any) -> float:
        """The usage term alone: minus the loss of diversity 1, without that of diversity 0."""
        losses = []
        for diversity in (0.0, 1.0):
            entropy = vq.Entropy(1.0, temperature=temperature, diversity=diversity)
            module = vq.nn.LFQ(
                rows.shape[1],
                regularize=(entropy,),
                commitment_weight=0.0,
                entropy_group=group,
                **options,
            )
            losses.append(float(module(rows).loss))
        return losses[0] - losses[1]

    found = [usage(group, spherical=spherical) for group in (12, 6, 3, 1)]
    assert found == sorted(found)
    assert found[-1] > found[0] + 0.5
    assert usage(None, spherical=spherical) == found[0]
    # Of each group, as if its channels were all there are. cos / T = -|u - c|^2 / 2 T + const.
    scale = 0.5 / 12**0.5 if spherical else 1.0
    parts = sum(usage(None, part) for part in (unit * scale).split(3, dim=1))
    assert abs(found[2] - parts) < 1e-4


@pytest.mark.parametrize("bits", [1, 18, 31, 32, 33, 53, 54, 61, 62])
def test_indices_and_codes_are_exact_both_ways(bits: int) -> None:
    module = vq.nn.LFQ(bits, regularize=(), channel_dim=-1)
    indices = torch.randint(2**bits, (50,), generator=generator(45))
    indices[:2] = torch.tensor([0, 2**bits - 1])
    codes = module.decode(indices)
    expected = [[1.0 if int(i) >> b & 1 else -1.0 for b in range(bits)[::-1]] for i in indices]
    assert torch.equal(codes, torch.tensor(expected))
    assert torch.equal(module.encode(codes * 0.1), indices)
    out = module(codes * 0.1)
    assert torch.equal(out.indices, indices)
    assert out.indices.dtype == torch.int64
    assert torch.equal(out.quantized, codes)
    assert module.num_embeddings == 2**bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_smallest_number_has_a_sign(dtype: torch.dtype) -> None:
    tiny = torch.tensor([1], dtype=torch.int16 if dtype.itemsize == 2 else torch.int32).view(dtype)
    x = torch.stack([tiny, -tiny, tiny * 0, -tiny * 0], dim=1)
    module = vq.nn.LFQ(4)
    for flush in (False, True):
        torch.set_flush_denormal(flush)
        try:
            found = [module.encode(x), module(x).indices]
        finally:
            torch.set_flush_denormal(False)
        assert [int(index) for index in found] == [8, 8]


def test_decoded_vectors_are_dense_whatever_the_strides_of_the_indices() -> None:
    """As a compiler expects them to be."""
    indices = torch.arange(6).reshape(2, 3).T
    assert vq.nn.LFQ(4).decode(indices).is_contiguous()


def test_decode_keeps_positions_and_refuses_other_indices() -> None:
    module = vq.nn.LFQ(3, spherical=True)
    indices = torch.tensor([[5, -1], [0, 7]])
    vectors = module.decode(indices)
    assert vectors.shape == (2, 3, 2)
    size = torch.tensor(1 / 3**0.5)
    assert torch.equal(vectors[0, :, 0], torch.stack([size, -size, size]))
    assert not vectors[0, :, 1].any()
    for bad in (8, -2):
        with pytest.raises(ValueError, match=rf"^indices must be in \[-1, 7\], got {bad}$"):
            module.decode(torch.tensor([0, bad]))
    with pytest.raises(TypeError, match=r"^indices must have an integer dtype"):
        module.decode(torch.zeros(2))
    with pytest.raises(ValueError, match=r"^indices must have at least 1 dimension"):
        module.decode(torch.tensor(1))


def test_more_than_20_bits_are_not_counted() -> None:
    x = torch.randn(10, 36, generator=generator(46))
    usage = vq.nn.LFQ(36, entropy_group=18)(x).usage
    assert usage.counts.shape == (0,)
    assert usage.perplexity.isnan()
    assert int(usage.active) == -1
    assert float(usage.mse) > 0
    assert vq.nn.LFQ(20)(x[:, :20]).usage.counts.shape == (2**20,)


def test_eval_mode_has_no_entropy() -> None:
    module, plain = vq.nn.LFQ(BITS).eval(), vq.nn.LFQ(BITS, regularize=())
    x, _ = _input("BD")
    assert torch.equal(module(x).loss, plain(x).loss)
    assert not torch.equal(module.train()(x).loss, plain(x).loss)


@either
def test_a_part_of_a_conjugate_is_read_as_its_values(spherical: bool) -> None:
    """torch negates such a view when it is read, not where it lies."""
    module = vq.nn.LFQ(BITS, spherical=spherical).eval()
    x = torch.randn(40, BITS, dtype=torch.complex64, generator=generator(42)).conj().imag
    assert x.is_neg()
    assert torch.equal(module.encode(x), module.encode(x.resolve_neg()))
    for found, expected in zip(module(x)[:3], module(x.resolve_neg())[:3], strict=True):
        assert torch.equal(found, expected)


@either
def test_autocast_changes_no_bit(spherical: bool) -> None:
    module = vq.nn.LFQ(BITS, spherical=spherical)
    x, mask = _input("BDHW")
    results = []
    for enabled in (False, True):
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = module(leaf, mask)
        results.append((*out[:3], *torch.autograd.grad(out.loss, leaf)))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_is_one_graph_for_every_size() -> None:
    torch._dynamo.reset()
    module = vq.nn.LFQ(BITS, spherical=True)
    counter = CompileCounterWithBackend("aot_eager")
    call: Any = torch.compile(module, backend=counter, fullgraph=True)
    for number, size in enumerate((15, 17, 23)):
        g = generator(number)
        x, mask = torch.randn(3, BITS, size, generator=g), torch.rand(3, size, generator=g) < 0.7
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        outs = [run(leaf, mask) for run, leaf in zip((module, call), leaves, strict=True)]
        for out in outs:
            (out.quantized.square().sum() + out.loss).backward()
        for first, second in zip(outs[0][:3], outs[1][:3], strict=True):
            assert torch.equal(first, second)
        assert torch.equal(leaves[0].grad, leaves[1].grad)
        if number == 1:
            settled = counter.frame_count
    assert counter.frame_count == settled
    decode: Any = torch.compile(module.decode, backend="aot_eager", fullgraph=True)
    assert torch.equal(decode(outs[0].indices), module.decode(outs[0].indices))
    torch._dynamo.reset()


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_step_is_the_plain_one(reentrant: bool) -> None:
    module = vq.nn.LFQ(BITS)
    x, _ = _input("BD")
    grads = []

    def region(x: Tensor) -> tuple[Tensor, Tensor]:
        out = module(x.tanh())
        return out.quantized, out.loss

    for run in (region, lambda x: checkpoint(region, x, use_reentrant=reentrant)):
        leaf = x.clone().requires_grad_()
        quantized, loss = run(leaf)
        (quantized.square().sum() + loss).backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


def test_it_stands_inside_of_other_quantizers() -> None:
    x = torch.randn(4, 10, 6, generator=generator(47))
    groups = vq.nn.GroupedVQ(lambda: vq.nn.LFQ(5), groups=2)
    parts = [vq.nn.LFQ(5)(part) for part in x.chunk(2, dim=1)]
    out = groups(x)
    assert torch.equal(out.indices, torch.stack([part.indices for part in parts], dim=-1))
    torch.testing.assert_close(out.loss, (parts[0].loss + parts[1].loss) / 2)
    assert out.usage.counts.shape == (2, 32)
    assert torch.equal(groups.decode(out.indices), out.quantized)

    module = projected(vq.nn.LFQ(18), 10)
    inner = module.quantizer(module.project_in(x.movedim(1, -1)).movedim(-1, 1))
    out = module(x)
    assert torch.equal(out.indices, inner.indices)
    assert torch.equal(out.loss, inner.loss)
    out.loss.backward()
    assert module.project_in.weight.grad.any()


def test_it_has_no_state_and_copies_are_alike() -> None:
    module = vq.nn.LFQ(BITS, spherical=True)
    assert not module.state_dict()
    assert not list(module.parameters())
    x, _ = _input("BD")
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), module.half()):
        assert torch.equal(other(x).loss, module(x).loss)
    module.init_codebook(x)
    module.flush()


@pytest.mark.parametrize(
    ("bits", "options", "kind", "message"),
    [
        (0, {}, ValueError, "bits must be at least 1, got 0"),
        (63, {}, ValueError, "bits must be at most 62, got 63"),
        (4.0, {}, TypeError, "bits must be an integer, got 4.0"),
        (4, {"spherical": 1}, TypeError, "spherical must be a bool, got 1"),
        (
            4,
            {"regularize": (vq.Orthogonal(0.1),)},
            TypeError,
            "regularize must be a tuple of Entropy(...), got "
            "(Orthogonal(weight=0.1, active_only=False),)",
        ),
        (
            21,
            {},
            ValueError,
            "entropy_group must be a divisor of bits=21 of at most 20, or regularize=(), got None",
        ),
        (
            36,
            {"entropy_group": 5},
            ValueError,
            "entropy_group must be a divisor of bits=36 of at most 20, or regularize=(), got 5",
        ),
        (4, {"entropy_group": 0}, ValueError, "entropy_group must be at least 1, got 0"),
        (4, {"channel_dim": None}, TypeError, "channel_dim must be an integer, got None"),
        (4, {"commitment_weight": -1}, ValueError, "commitment_weight must be at least 0, got -1"),
        (
            4,
            {"backend": "cuda"},
            ValueError,
            "backend must be one of 'native', 'triton', 'reference', got 'cuda'",
        ),
    ],
)
def test_the_constructor_refuses(
    bits: Any, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        vq.nn.LFQ(bits, **options)


def test_a_bad_input_is_refused_by_name() -> None:
    module = vq.nn.LFQ(4)
    with pytest.raises(ValueError, match=r"did you mean channel_dim=-1\?$"):
        module(torch.zeros(2, 5, 4))
    with pytest.raises(ValueError, match=r"^mask must have shape \(2,\), got \(3,\)$"):
        module(torch.zeros(2, 4), torch.ones(3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"^x must be float32"):
        module(torch.zeros(2, 4, dtype=torch.int64))
