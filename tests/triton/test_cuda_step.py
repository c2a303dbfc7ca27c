"""A whole step on a CUDA device: the CPU's values, the same bits on every run, no waiting.

The graph test holds what only a device can show: a captured step, replayed, is an eager one.
"""

from __future__ import annotations

from collections.abc import Callable

import cases
import pytest
import torch
from backends import interpreted
from modules import UPDATES, batches, quantizer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vqkernels as vq
from vqkernels import ops
from vqkernels.ops.advance import in_torch as advance_in_torch
from vqkernels.ops.normalize_codes import in_torch as normalize_codes_in_torch
from vqkernels.ops.sample_rows import in_torch as sample_rows_in_torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(interpreted(), reason="kernels are interpreted in this process"),
]

N = 3000
GRAD_LOSS = torch.tensor(-1.7)


def _to(device: str, value: object) -> object:
    return value.to(device) if isinstance(value, Tensor) else value


def _assert_close(got: Tensor, expected: Tensor) -> None:
    """Both accumulate in float64 and round once, so they differ by an eps of their dtype; a
    float32 weight and the rows' reciprocals add as much again."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    got = got.cpu()
    if not expected.is_floating_point():
        assert torch.equal(got, expected)
        return
    assert torch.equal(got.isnan(), expected.isnan())
    if expected.numel():
        finite = expected.nan_to_num(0.0).double()
        error = (got.double().nan_to_num(0.0) - finite).abs().max()
        assert error <= 2 * torch.finfo(expected.dtype).eps * finite.abs().max()


def _forward(
    device: str, x: Tensor, codes: Tensor, mask: Tensor | None, *options: object
) -> tuple:
    arguments = (x, codes, None, mask, *options, True, None)
    return ops.vq_forward(*(_to(device, value) for value in arguments))


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_forward_and_backward_equal_the_cpu(
    layout: str, dtype: torch.dtype, metric: str, masked: bool
) -> None:
    rows, codes = cases.batch()
    x, channel = cases.LAYOUTS[layout](rows.to(dtype))
    channel %= x.ndim
    if metric == "cosine":
        codes = ops.normalize_codes(codes)[0]
    positions = x.movedim(channel, -1).shape[:-1]
    mask = (torch.arange(positions.numel()) % 3 != 1).reshape(positions) if masked else None
    expected = _forward("cpu", x, codes, mask, metric, channel)
    got = _forward("cuda", x, codes, mask, metric, channel)
    assert torch.equal(got[0].cpu(), expected[0])
    for value, wanted in zip(got, expected, strict=True):
        _assert_close(value, wanted)
    upstream = torch.randn(x.shape, generator=cases.generator(21)).to(dtype)
    for estimator in cases.ESTIMATORS:
        saved = (upstream, GRAD_LOSS, x, *expected[:2], 11, metric, estimator, 0.3, 0.7, channel)
        wanted = ops.vq_backward(*saved, True, True, None)
        found = ops.vq_backward(*(_to("cuda", value) for value in saved), True, True, None)
        for value, target in zip(found, wanted, strict=True):
            _assert_close(value, target)


@pytest.mark.parametrize("ends", [False, True], ids=["all levels", "kept"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_a_residual_step_equals_the_cpu(
    layout: str, estimator: str, shared: bool, ends: bool
) -> None:
    rows, codebook = cases.batch()
    x, channel = cases.LAYOUTS[layout](rows)
    books = codebook[None] if shared else cases.codebooks(codebook, 3)
    positions = x.movedim(channel, -1).shape[:-1]
    kept = (torch.arange(positions.numel()) % 4).reshape(positions) if ends else None
    results = []
    for device in ("cpu", "cuda"):
        leaves = [value.to(device).requires_grad_() for value in (x.detach(), books)]
        out = vq.residual_quantize(
            leaves[0],
            leaves[1][0] if shared else leaves[1],
            levels=3,
            estimator=estimator,
            kept=None if kept is None else kept.to(device),
            channel_dim=channel,
        )
        ((out.quantized * x.to(device)).sum() + out.loss).backward()
        results.append(
            [out.indices, out.quantized, out.loss, *out.usage, *(v.grad for v in leaves)]
        )
    for got, expected in zip(results[1], results[0], strict=True):
        _assert_close(got, expected)


def test_state_ops_return_the_bits_of_their_specification() -> None:
    g = cases.generator(3)
    counts = torch.randint(0, 9, (3000,), generator=g).float()
    codes = torch.randn(3000, 24, generator=g)
    rows = torch.randn(256, 24, generator=g)
    rows[9, 3] = torch.inf
    sums, steps, clock = codes * counts[:, None], torch.tensor(2), torch.tensor(5)
    state = (codes, counts / 3, codes * counts[:, None] / 3, counts, sums, rows, steps, clock)
    idle = torch.randint(0, 150, (3000,), generator=g)
    state = (*state, idle, torch.tensor(1), (torch.rand(3000, generator=g) < 0.2).long())
    for metric in cases.METRICS:
        options = (0.9, 1e-5, 2, metric, 0.7, 100, 3)
        expected = [value.clone() for value in state]
        advance_in_torch(*expected, *options)
        got = [value.cuda() for value in state]
        ops.advance_(*got, *options)
        for value, wanted in zip(got, expected, strict=True):
            assert torch.equal(value.cpu().nan_to_num(7.0), wanted.nan_to_num(7.0))
    for got, wanted in zip(
        ops.normalize_codes(codes.cuda()), normalize_codes_in_torch(codes), strict=True
    ):
        assert torch.equal(got.cpu(), wanted)
    mask = torch.rand(3000, generator=g) < 0.4
    arguments = (codes, mask, torch.tensor(9), 256, 7)
    drawn = ops.sample_rows(*(_to("cuda", value) for value in arguments), "l2", 1)
    for got, wanted in zip(drawn, sample_rows_in_torch(*arguments, 1), strict=True):
        assert torch.equal(got.cpu(), wanted)


@pytest.mark.parametrize("hot", [False, True], ids=["spread", "hot"])
def test_sums_are_the_same_bits_on_every_run(hot: bool) -> None:
    x = torch.randn(1 << 20, 32, generator=cases.generator(1))
    indices = torch.randint(0, 40_000, (1 << 20,), generator=cases.generator(2))
    indices = torch.where(torch.arange(1 << 20) % 9 > 0, 7, indices) if hot else indices
    expected = vq.code_sums(x, indices, 40_000)
    runs = [vq.code_sums(x.cuda(), indices.cuda(), 40_000) for _ in range(3)]
    for got in runs:
        assert torch.equal(got.counts.cpu(), expected.counts)
        assert torch.equal(got.sums, runs[0].sums)
    _assert_close(runs[0].sums, expected.sums)
    atomic = vq.code_sums(x.cuda(), indices.cuda(), 40_000, deterministic=False)
    assert torch.equal(atomic.counts.cpu(), expected.counts)
    magnitude = vq.code_sums(x.abs(), indices, 40_000).sums
    allowed = torch.finfo(torch.float32).eps * expected.counts[:, None] * magnitude
    assert ((atomic.sums.cpu() - expected.sums).abs() <= allowed).all()


def _quantizer(**options: object) -> nn.Module:
    return quantizer(k=64, **options).cuda()


def _residual_quantizer(**options: object) -> nn.Module:
    sizes = (64, 48, 64)
    levels = [quantizer(seed, k=k) for seed, k in enumerate(sizes)]
    return vq.nn.ResidualVQ(levels, **options).cuda()


_MODULES: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda update=update: _quantizer(update=update) for name, update in UPDATES.items()},
    "cosine": lambda: _quantizer(metric="cosine"),
    "rotation": lambda: _quantizer(estimator="rotation"),
    "residual": _residual_quantizer,
    "residual, dropout": lambda: _residual_quantizer(dropout=vq.LevelDropout(0.5)),
}


def _step(module: nn.Module, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    leaf = x.detach().requires_grad_()
    out = module(leaf, mask)
    gradients = torch.autograd.grad(out.quantized.square().sum() + out.loss, leaf)
    return [out.quantized, out.indices, out.loss, *out.usage, *gradients]


def _mask(masked: bool) -> Tensor | None:
    return torch.arange(N, device="cuda") % 3 != 1 if masked else None


masks = pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])


@masks
@pytest.mark.parametrize("name", _MODULES)
def test_a_captured_step_replays_as_eager_steps_run(name: str, masked: bool) -> None:
    xs, mask = [x.cuda() for x in batches(7, N)], _mask(masked)
    eager, captured = _MODULES[name](), _MODULES[name]()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # initialises the codebook, compiles the kernels
        for x in xs[:3]:
            _step(captured, x, mask)
    torch.cuda.current_stream().wait_stream(stream)
    for x in xs[:3]:
        _step(eager, x, mask)
    graph, x = torch.cuda.CUDAGraph(), xs[0].clone()
    with torch.cuda.graph(graph):
        outputs = _step(captured, x, mask)
    for following in xs[3:]:
        x.copy_(following)
        graph.replay()
        for got, expected in zip(outputs, _step(eager, following, mask), strict=True):
            assert torch.equal(got, expected)
    for key, value in eager.state_dict().items():
        assert torch.equal(captured.state_dict()[key], value), key


@masks
@pytest.mark.parametrize("name", _MODULES)
def test_a_step_never_waits_for_the_device(name: str, masked: bool) -> None:
    module, xs, mask = _MODULES[name](), [x.cuda() for x in batches(4, N)], _mask(masked)
    _step(module, xs[0], mask)  # the k-means initialisation reads its flag once
    torch.cuda.set_sync_debug_mode("error")
    try:
        for x in xs[1:]:
            _step(module, x, mask)
        module.eval()  # moves the codebook
        _step(module, xs[0], mask)
        module.decode(module.encode(xs[0]))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("moved", [False, True], ids=["every=4", "every=1"])
@pytest.mark.parametrize("residual", [False, True], ids=["single", "residual"])
def test_a_recompute_with_a_moved_codebook_gives_nan_without_waiting(
    residual: bool, moved: bool
) -> None:
    """Where the CPU raises: reading the codebook's clock would stall the stream."""
    update = vq.EMA(every=1 if moved else 4)
    module: nn.Module = _quantizer(update=update, init="normal")
    if residual:
        module = vq.nn.ResidualVQ(lambda: quantizer(update=update, init="normal"), levels=2).cuda()
    xs = [x.cuda().requires_grad_() for x in batches(2, N)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        first, second = (
            checkpoint(
                lambda x: module(x).quantized.square(),
                x,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            for x in xs
        )
        (first.sum() + second.sum()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(xs[0].grad.isnan().all()) is moved
    assert xs[1].grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", _MODULES)
def test_autocast_changes_no_bit_of_a_step(name: str, dtype: torch.dtype) -> None:
    plain, module = _MODULES[name](), _MODULES[name]()
    for x in batches(4, N):
        expected = _step(plain, x.cuda())
        with torch.autocast("cuda", dtype):
            got = _step(module, x.cuda())
        for value, wanted in zip(got, expected, strict=True):
            assert torch.equal(value, wanted)
