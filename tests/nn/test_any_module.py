"""Random quantizers, nested and with random options, on random rows: native is the reference."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import strategies
import torch
from backends import available
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import vqkernels as vq

pytestmark = pytest.mark.skipif("native" not in available(), reason="native is not built")

_UPDATES = (vq.EMA(0.8), vq.EMA(0.9, every=2), vq.Gradient(), vq.Gradient(0.5), None)
_REVIVALS = (None, vq.Revive(), vq.Revive(threshold=3.0, age=2.0, candidates=5))
_DROPOUTS = (None, vq.LevelDropout(0.7), vq.LevelDropout(keep=2, multiple_of=2))


@dataclasses.dataclass
class Case:
    module: nn.Module
    x: Tensor
    mask: Tensor | None


@st.composite
def _single(draw: st.DrawFn, d: int, channel_dim: int, *, plain: bool) -> Callable[[], nn.Module]:
    """A maker of equal quantizers but for their codes; ``plain`` ones fit into a ResidualVQ."""
    update, k = draw(st.sampled_from(_UPDATES)), draw(st.integers(4, 40))
    regularize: tuple[vq.Entropy | vq.Orthogonal, ...] = ()
    if isinstance(update, vq.Gradient) and draw(st.booleans()):
        regularize = (vq.Orthogonal(0.1, active_only=draw(st.booleans())),)
    if not plain and draw(st.booleans()):
        regularize += (vq.Entropy(0.1, temperature=draw(st.sampled_from([0.5, 4.0]))),)
    options = {
        "update": update,
        "commitment_weight": draw(st.sampled_from([0.0, 0.25, 1.0])),
        "estimator": draw(st.sampled_from(["straight_through", "rotation"])),
        "metric": "l2" if plain else draw(st.sampled_from(["l2", "cosine"])),
        "init": draw(st.sampled_from(["kmeans", "normal"])),
        "assign": None if plain else draw(st.sampled_from([None, None, vq.TopK(3)])),
        "regularize": regularize,
        "channel_dim": channel_dim,
    }
    if update is not None:
        options["revive"] = draw(st.sampled_from(_REVIVALS))
        if draw(st.booleans()):
            options["frozen"] = torch.arange(k) % 3 == 0
    return lambda: vq.nn.VectorQuantizer(k, d, **options)


@st.composite
def _cases(draw: st.DrawFn) -> Case:
    d, channel_dim = draw(st.integers(2, 9)), draw(st.sampled_from([1, -1]))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["single", "residual", "groups", "grouped residual"]))
    make = draw(_single(d, channel_dim, plain="residual" in kind))
    if kind == "grouped residual" or kind == "residual":
        levels, shared = draw(st.integers(2, 3)), draw(st.booleans())
        dropout = draw(st.sampled_from(_DROPOUTS))
        one, residual = make, {"shared": shared, "dropout": dropout}
        make = lambda: vq.nn.ResidualVQ(one, levels, **residual)  # noqa: E731
    module, width = make(), d
    if kind.startswith("group") and getattr(module, "assign", None) is None:
        groups = draw(st.integers(1, 3))
        module, width = vq.nn.GroupedVQ(make, groups, shared=draw(st.booleans())), d * groups
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    if getattr(module, "assign", None) is None and draw(st.booleans()):
        module, width, dtype = vq.nn.Projected(module, 7), 7, torch.float32
    positions = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    if draw(st.integers(0, 20)) == 0:
        positions[0] = 0
    x = torch.randn(*positions, width).to(dtype)
    if draw(st.booleans()):  # the last dimension no longer has stride 1
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    x = x if channel_dim == -1 or x.ndim == 2 else x.movedim(-1, 1)
    mask = (
        torch.rand(positions) < draw(st.sampled_from([0.0, 0.6])) if draw(st.booleans()) else None
    )
    return Case(module, x, mask)


def _set_backend(module: nn.Module, backend: str) -> nn.Module:
    for part in module.modules():
        if isinstance(part, vq.nn.VectorQuantizer):
            part.backend = backend
    return module


def _assert_close(got: Tensor | None, expected: Tensor | None, name: str) -> None:
    """To one rounding of the dtype, and 64 of float32 in sums, norms and a division before it."""
    assert (got is None) == (expected is None), name
    if got is None or expected is None or not got.numel():
        return
    got, expected = got.detach(), expected.detach()
    assert got.shape == expected.shape, name
    assert torch.equal(got.isnan(), expected.isnan()), name
    scale = max(float(expected.double().nan_to_num().abs().max()), 1.0)
    eps = torch.finfo(got.dtype).eps + 64 * torch.finfo(torch.float32).eps
    error = float((got.double() - expected.double()).nan_to_num().abs().max())
    assert error <= eps * scale, (name, error, scale)


@strategies.relaxed
@given(case=_cases(), data=st.data())
def test_any_quantizer_steps_as_on_the_reference_backend(case: Case, data: st.DataObject) -> None:
    runs: list[tuple[nn.Module, Tensor | None, vq.VQOutput]] = []
    upstream = None
    for backend in ("native", "reference"):
        module = _set_backend(copy.deepcopy(case.module), backend)
        x = case.x.clone(memory_format=torch.preserve_format).requires_grad_()
        out = module(x, case.mask)
        if upstream is None:
            upstream = data.draw(strategies.upstream(out.quantized))
        torch.autograd.backward([out.quantized, out.loss], [upstream, None])
        runs.append((module, x.grad, out))
    (module, grad, out), (other, expected_grad, expected) = runs
    assert torch.equal(out.indices, expected.indices)
    assert torch.equal(out.usage.counts, expected.usage.counts)
    assert torch.equal(out.quantized, expected.quantized)
    _assert_close(out.loss, expected.loss, "loss")
    _assert_close(grad, expected_grad, "gradient of x")
    for (name, value), twin in zip(module.named_parameters(), other.parameters(), strict=True):
        _assert_close(value.grad, twin.grad, f"gradient of {name}")
    module.flush()
    other.flush()
    for (name, value), twin in zip(module.named_buffers(), other.buffers(), strict=True):
        if value.is_floating_point():
            _assert_close(value, twin, name)
        else:
            assert torch.equal(value, twin), name


@strategies.relaxed
@given(case=_cases())
def test_what_any_quantizer_returns_is_decoded_by_itself(case: Case) -> None:
    """And a masked position is x, whatever the quantizer is made of."""
    module = case.module.eval()
    out = module(case.x, case.mask)
    channel = module.channel_dim % case.x.ndim
    decoded = module.decode(out.indices).to(case.x.dtype)
    keep = torch.ones(out.indices.shape[: case.x.ndim - 1], dtype=torch.bool)
    keep = keep if case.mask is None else case.mask
    aside = decoded.ndim - case.x.ndim  # TopK has its axis last
    place = keep.unsqueeze(channel)[(..., *(None,) * aside)]
    x = case.x[(..., *(None,) * aside)]
    expected = torch.where(place, decoded, x)
    if isinstance(module, vq.nn.Projected):  # its Linear rounds rows that lie otherwise otherwise
        _assert_close(out.quantized, expected, "quantized")
    else:
        assert torch.equal(out.quantized, expected)
    if case.mask is None:
        assert torch.equal(module.encode(case.x), out.indices)
