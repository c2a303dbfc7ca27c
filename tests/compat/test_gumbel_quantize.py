"""GumbelQuantize against a specimen of taming-transformers' with the noise of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compat import agreement
from compat.specimens import gumbel
from torch import Tensor, nn

import vqkernels as vq
from vqkernels import ops
from vqkernels.backends.reference._dot_blocks import dot_blocks
from vqkernels.compat.taming import GumbelQuantize
from vqkernels.ops.draw_code import noise_keys

C, D, K = 10, 6, 24
SHAPE = (2, C, 5, 4)
# The library is not installed: its path for the specimen.
Specimen: Any = type(
    "GumbelQuantize", (gumbel.GumbelQuantize,), {"__module__": "taming.modules.vqvae.quantize"}
)


def pair(**options: Any) -> tuple[Any, Any]:
    """(ours, theirs) with one state, loaded strictly in both directions."""
    torch.manual_seed(0)
    theirs, ours = (kind(C, D, K, **options) for kind in (Specimen, GumbelQuantize))
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def z(seed: int = 1) -> Tensor:
    return 2.0 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def next_noise(ours: GumbelQuantize, codes: int = K) -> Tensor:
    """(B, codes, H, W): what the next call will add to the logits."""
    batch, _, height, width = SHAPE
    x, weight = torch.zeros(batch * height * width, 1), torch.zeros(codes, 1)
    keys = noise_keys(x, weight, ours.draws + 1, ours._seed)
    noise = dot_blocks(x, weight, None, None, None, keys).logits(slice(None))
    return noise.view(batch, height, width, codes).permute(0, 3, 1, 2)


def assert_same_step(ours: Any, theirs: Any, x: Tensor, codes: int = K, **call: Any) -> None:
    theirs.noise = next_noise(ours, codes)
    one, grad, learnt = agreement.gradients(ours, x, lambda m, x: m(x, **call))
    other, their_grad, they_learnt = agreement.gradients(theirs, x, lambda m, x: m(x, **call))
    assert torch.utils._pytree.tree_structure(one) == torch.utils._pytree.tree_structure(other)
    for mine, expected in zip(*map(torch.utils._pytree.tree_leaves, (one, other)), strict=True):
        if expected is None:
            assert mine is None
        elif expected.is_floating_point():
            agreement.assert_in_one_band(mine, expected)
        else:
            assert torch.equal(mine, expected)
    agreement.assert_in_one_band(grad, their_grad)
    for name, expected in they_learnt.items():
        agreement.assert_in_one_band(learnt[name], expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"straight_through": False}, {"temp_init": 0.4, "kl_weight": 0.3}],
    ids=["defaults", "soft", "weights"],
)
def test_a_step_with_the_same_noise_is_theirs(options: dict[str, Any], training: bool) -> None:
    ours, theirs = pair(**options)
    ours.train(training)
    theirs.train(training)
    assert_same_step(ours, theirs, z())
    assert_same_step(ours, theirs, z(2), temp=2.0)


@pytest.mark.parametrize("call", [{}, {"return_logits": True}])
@pytest.mark.parametrize("interface", [True, False])
def test_what_is_returned_has_their_structure(interface: bool, call: dict[str, bool]) -> None:
    ours, theirs = pair(use_vqinterface=interface)
    assert_same_step(ours, theirs, z(), **call)


def test_the_value_is_the_row_of_the_drawn_code_bit_for_bit() -> None:
    ours, _ = pair()
    quantized, _, (_, _, indices) = ours(z())
    assert torch.equal(quantized, ours.embed(indices).permute(0, 3, 1, 2))
    entry = ours.get_codebook_entry(indices.reshape(-1), (2, 5, 4, D))
    assert torch.equal(entry, quantized)


def test_fifty_steps_are_in_step() -> None:
    ours, theirs = pair(kl_weight=0.1)
    steps = [torch.optim.SGD(module.parameters(), lr=0.01) for module in (ours, theirs)]
    for seed in range(50):
        assert_same_step(ours, theirs, z(seed))
        for step in steps:
            step.step()
    for name, value in theirs.state_dict().items():
        agreement.assert_in_one_band(ours.state_dict()[name], value)


@pytest.mark.parametrize("training", [True, False])
def test_codes_are_drawn_as_often_as_theirs(training: bool) -> None:
    """In evaluation too. Chi-square of two samples of 20000 draws of one vector."""
    ours, theirs = pair()
    x = z()[:1, :, :1, :1].expand(1, C, 100, 200)
    counts = []
    for module in (ours, theirs):
        indices = module.train(training)(x)[2][2]
        counts.append(indices.flatten().bincount(minlength=K).double())
    both = counts[0] + counts[1]
    seen = both > 0
    statistic = float(((counts[0] - counts[1]) ** 2 / both)[seen].sum())
    freedom = int(seen.sum()) - 1
    assert freedom > 5
    assert statistic < freedom + 5.0 * (2.0 * freedom) ** 0.5


def test_every_call_draws_anew_and_another_module_something_else() -> None:
    ours, _ = pair()
    again = GumbelQuantize(C, D, K)
    again.load_state_dict(ours.state_dict())
    first, second, other = (module(z())[2][2] for module in (ours, ours, again))
    assert (first != second).float().mean() > 0.3
    assert (first != other).float().mean() > 0.3


@pytest.mark.parametrize("unknown", ["random", "extra", 3])
def test_only_codes_in_use_are_drawn_with_a_remap(tmp_path: Path, unknown: Any) -> None:
    np.save(tmp_path / "used.npy", np.array([9, 3, 20, 0, 17]))
    ours, theirs = pair(remap=str(tmp_path / "used.npy"), unknown_index=unknown)
    assert ours.re_embed == theirs.re_embed
    assert_same_step(ours, theirs, z(), codes=5, return_logits=True)
    quantized, _, (_, _, indices) = ours(z())
    assert 0 <= int(indices.min()) <= int(indices.max()) < 5
    assert torch.equal(quantized, ours.embed(ours.used[indices]).permute(0, 3, 1, 2))
    shape = (2, 5, 4, D)
    assert torch.equal(ours.get_codebook_entry(indices.reshape(-1), shape), quantized)


def test_it_converts_and_comes_back() -> None:
    _, theirs = pair(kl_weight=0.2, temp_init=0.5)
    model = nn.Sequential(theirs).eval()
    parameters = list(model.parameters())
    vq.convert(model)
    assert type(model[0]) is GumbelQuantize
    assert (model[0].kl_weight, model[0].temperature, model[0].training) == (0.2, 0.5, False)
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    assert_same_step(model[0], theirs, z())
    vq.revert(model)
    assert type(model[0]) is Specimen


def test_a_whole_step_compiles() -> None:
    ours, _ = pair()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    draws = ours.draws.clone()
    expected = ours(z())
    with torch.no_grad():
        ours.draws.copy_(draws)
    out = compiled(z())
    assert torch.equal(out[0], expected[0])
    assert torch.equal(out[2][2], expected[2][2])


def test_the_draws_are_those_of_the_op() -> None:
    ours, _ = pair()
    rows = z().permute(0, 2, 3, 1).reshape(-1, C)
    weight, bias = ours.proj.weight.detach().flatten(1), ours.proj.bias.detach()
    expected = ops.draw_code(rows, weight, bias, None, ours.draws + 1, ours._seed)
    assert torch.equal(ours(z())[2][2].flatten(), expected)


def test_bad_input_is_named() -> None:
    ours, _ = pair()
    with pytest.raises(ValueError, match="z must have size 10"):
        ours(torch.zeros(2, D, 5, 4))
