"""RandomProjectionVQ: frozen labels, exact, the same in every process."""

from __future__ import annotations

from typing import Any

import cases
import oracle
import pytest
import torch
from modules import assert_same_state, snapshot
from torch import Tensor
from torch.nn import functional as F

import vqkernels as vq

N, K, D, CODE = 150, 64, 12, 5


def _module(**options: Any) -> vq.nn.RandomProjectionVQ:
    return vq.nn.RandomProjectionVQ(K, D, CODE, **options)


def _x() -> Tensor:
    return 3.0 * torch.randn(N, D, generator=cases.generator(0)) + 1.0


@pytest.mark.parametrize("codebooks", [1, 3])
@pytest.mark.parametrize("norm", [True, False])
def test_labels_are_the_largest_cosines_of_the_projections(codebooks: int, norm: bool) -> None:
    module, x = _module(codebooks=codebooks, norm=norm), _x()
    projected = (F.layer_norm(x, (D,)) if norm else x) @ module.projection.T
    out = module(x)
    assert out.indices.shape == (N, codebooks)
    for head, part in enumerate(projected.split(CODE, dim=1)):
        codes = module.quantizer.quantizers[head].codebook
        truth, _ = oracle.nearest_code(part, codes, "cosine")
        assert out.indices[:, head].tolist() == truth.tolist()
        unit = torch.from_numpy(oracle.normalised(codes.double().numpy()))
        columns = slice(head * CODE, (head + 1) * CODE)
        assert torch.equal(out.quantized[:, columns], unit[truth])
    assert torch.equal(module.encode(x), out.indices)
    assert torch.equal(module.decode(out.indices), out.quantized)
    assert out.usage.counts.sum(dim=1).tolist() == [N] * codebooks


def test_the_draw_is_that_of_the_seed_whatever_the_generator() -> None:
    torch.manual_seed(1)
    first = _module()
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, other = _module(), _module(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_state(second, snapshot(first))
    assert not torch.equal(other.projection, first.projection)
    # Xavier: variance 2 / (D + code_dim), here of 60000 values.
    std = float(vq.nn.RandomProjectionVQ(2, 300, 200).projection.std())
    assert std == pytest.approx((2.0 / 500) ** 0.5, rel=0.02)


@pytest.mark.parametrize("mode", [True, False])
def test_nothing_is_trained(mode: bool) -> None:
    module, x = _module(codebooks=2).train(mode), _x().requires_grad_()
    before = snapshot(module)
    out = module(x)
    assert list(module.parameters()) == []
    assert out.loss == 0
    assert not out.quantized.requires_grad
    assert not out.loss.requires_grad
    module.flush()
    module.init_codebook(x)
    assert_same_state(module, before)


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_only_the_position_of_a_row_counts(layout: str) -> None:
    given = torch.randn(24, D, generator=cases.generator(0))
    laid, channel_dim = cases.LAYOUTS[layout](given)
    rows = laid.movedim(channel_dim, -1).reshape(-1, D)
    out = _module(codebooks=2, channel_dim=channel_dim)(laid)
    assert torch.equal(out.indices.reshape(-1, 2), _module(codebooks=2)(rows).indices)
    assert out.quantized.shape[channel_dim] == 2 * CODE


def test_masked_rows_have_no_label_and_rows_that_are_not_finite_the_first() -> None:
    module, x = _module(codebooks=2), _x()
    expected = module(x)
    mask = torch.arange(N) % 3 != 1
    x[0, 3], x[3, 0], x[~mask] = torch.nan, torch.inf, torch.nan
    out = module(x, mask)
    assert (out.indices[~mask] == -1).all()
    assert (out.quantized[~mask] == 0).all()
    assert (out.indices[[0, 3]] == 0).all()
    assert out.quantized[[0, 3]].isnan().all()
    mask[[0, 3]] = False
    assert torch.equal(out.indices[mask], expected.indices[mask])
    assert out.usage.counts.sum(dim=1).tolist() == [int(mask.sum())] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_labels_of_low_precision_rows_are_those_of_their_values(dtype: torch.dtype) -> None:
    module, x = _module(codebooks=2).to(dtype), _x().to(dtype)
    assert {t.dtype for t in module.state_dict().values()} <= {torch.float32, torch.int64}
    expected = _module(codebooks=2)(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert torch.equal(out.indices, expected.indices)
    assert out.quantized.dtype == dtype


def test_compiled_labels_are_the_eager_ones() -> None:
    module, x = _module(codebooks=2), _x()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x).indices, module(x).indices)


def test_it_stands_behind_a_projection() -> None:
    module = vq.nn.Projected(_module(codebooks=2), in_dim=7)
    x = torch.randn(3, 7, 5)
    out = module(x)
    assert out.quantized.shape == x.shape
    torch.testing.assert_close(module.decode(out.indices), out.quantized)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    module = _module()
    before = snapshot(module)
    for name in ("projection", "quantizer.quantizers.0.codebook"):
        bad = {**snapshot(_module(seed=1)), name: before[name][:-1]}
        with pytest.raises(RuntimeError, match="must have shape"):
            module.load_state_dict(bad)
    assert_same_state(module, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"codebooks": 0}, ValueError, "codebooks must be at least 1"),
        ({"norm": None}, TypeError, "norm must be a bool"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
    ],
)
def test_bad_options_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _module(**options)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="x must have size 12"):
        _module()(torch.zeros(3, CODE))
