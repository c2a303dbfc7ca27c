"""SimVQ and ResidualSimVQ against vector-quantize-pytorch 1.32."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as library
from compat import agreement
from compat.vqp_pairs import assert_same_output, assert_same_step, pair
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import CheckpointError
from vqkernels.compat.vector_quantize_pytorch import ResidualSimVQ, SimVQ

D, K = 8, 40
SEQUENCE, IMAGE, CHANNELS_LAST_IMAGE = (2, 30, D), (2, D, 5, 6), (2, 5, 6, D)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 12), nn.Tanh(), nn.Linear(12, D))


OPTIONS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "defaults": ({}, SEQUENCE),
    "vectors": ({}, (30, D)),
    "channels last": ({}, CHANNELS_LAST_IMAGE),
    "channels first": ({"channel_first": True}, IMAGE),
    "sequence, channels first": ({"channel_first": True}, (2, D, 30)),
    "straight through": ({"rotation_trick": False}, SEQUENCE),
    "weights": (
        {"input_to_quantize_commit_loss_weight": 0.7, "commitment_weight": 3.0},
        SEQUENCE,
    ),
    "narrow frozen codes": ({"frozen_codebook_dim": 5}, SEQUENCE),
    "transform": ({"codebook_transform": mlp()}, SEQUENCE),
    "initialisation": ({"init_fn": lambda codes: 3.0 * codes}, SEQUENCE),
}
options = pytest.mark.parametrize("name", OPTIONS)


def near(codebook: Tensor, shape: tuple[int, ...], channel_first: bool, seed: int = 0) -> Tensor:
    """x of that shape whose nearest codes no rounding can change."""
    positions = (shape[0], *shape[2:]) if channel_first else shape[:-1]
    count = torch.Size(positions).numel()
    rows = agreement.with_margin(codebook.detach(), count, seed).view(*positions, D)
    return rows.movedim(-1, 1).contiguous() if channel_first else rows


@options
def test_a_step_and_an_evaluation_are_theirs(name: str) -> None:
    arguments, shape = OPTIONS[name]
    ours, theirs = pair("SimVQ", dim=D, codebook_size=K, **copy.deepcopy(arguments))
    x = near(theirs.codebook, shape, ours.channel_first)
    assert_same_step(ours, theirs, x, lambda module, x: module(x))
    agreement.assert_in_one_band(ours.codebook, theirs.codebook)
    _, indices, _ = theirs(x)
    agreement.assert_in_one_band(ours.indices_to_codes(indices), theirs.indices_to_codes(indices))


def test_indices_are_exact_where_theirs_are_not() -> None:
    """Far from the origin, where torch.cdist loses the difference between codes."""
    ours, theirs = pair("SimVQ", dim=D, codebook_size=K, init_fn=lambda c: 0.01 * c + 30.0)
    x = ours.codebook.detach().mean(dim=0) + 0.003 * torch.randn(1, 2000, D)
    wrong = agreement.assert_same_codes(ours(x)[1], theirs(x)[1], x[0], ours.codebook)
    assert wrong


@pytest.mark.parametrize("rotation_trick", [True, False])
def test_fifty_steps_are_in_step(rotation_trick: bool) -> None:
    ours, theirs = pair("SimVQ", dim=D, codebook_size=K, rotation_trick=rotation_trick)
    xs = [near(theirs.codebook, SEQUENCE, False, seed) for seed in range(50)]
    agreement.assert_steps_agree(ours, theirs, xs, learning_rate=1e-3)


RESIDUAL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "defaults": ({}, SEQUENCE),
    "straight through": ({"rotation_trick": False}, SEQUENCE),
    "channels first": ({"channel_first": True}, IMAGE),
    "channels last": ({}, CHANNELS_LAST_IMAGE),
    "weights": ({"commitment_weight": 0.5, "frozen_codebook_dim": 4}, SEQUENCE),
}


def residual(**arguments: Any) -> tuple[Any, Any]:
    return pair("ResidualSimVQ", dim=D, num_quantizers=4, codebook_size=K, **arguments)


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_residual_step_and_an_evaluation_are_theirs(name: str) -> None:
    arguments, shape = RESIDUAL[name]
    ours, theirs = residual(**arguments)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    call = lambda module, x: module(x, return_all_codes=True)  # noqa: E731
    assert_same_step(ours, theirs, x, call)
    _, indices, _ = theirs(x)
    for part in (indices, indices.masked_fill(indices % 5 == 0, -1)):
        agreement.assert_in_one_band(
            ours.get_codes_from_indices(part), theirs.get_codes_from_indices(part)
        )
        agreement.assert_in_one_band(
            ours.get_output_from_indices(part), theirs.get_output_from_indices(part)
        )
    agreement.assert_in_one_band(ours.codebooks, theirs.codebooks)
    assert ours.codebook_size == theirs.codebook_size


@pytest.mark.parametrize("channel_first", [True, False])
@pytest.mark.parametrize("multiple_of", [1, 2])
def test_dropped_levels_are_theirs_for_a_given_seed(channel_first: bool, multiple_of: int) -> None:
    ours, theirs = residual(
        quantize_dropout=True,
        quantize_dropout_cutoff_index=1,
        quantize_dropout_multiple_of=multiple_of,
        channel_first=channel_first,
    )
    x = torch.randn(2, D, 7) if channel_first else torch.randn(2, 7, D)
    kept = set()
    for seed in range(8):
        out = ours(x, rand_quantize_dropout_fixed_seed=seed, return_all_codes=True)
        other = theirs(x, rand_quantize_dropout_fixed_seed=seed, return_all_codes=True)
        assert_same_output(out, other)
        kept.add(int((out[1][0, ..., :] >= 0).sum(dim=-1).max()))
    assert len(kept) > 1
    found = ours(x)[1][..., -1]
    assert ((found == -1).all() or (found >= 0).all()).item()
    coarse = other[1][..., :2]
    agreement.assert_in_one_band(
        ours.get_output_from_indices(coarse), theirs.get_output_from_indices(coarse)
    )


def test_missing_levels_need_quantizer_dropout() -> None:
    ours, _ = residual()
    with pytest.raises(ValueError, match="indices must have shape"):
        ours.get_codes_from_indices(torch.zeros(2, 3, 2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 2}, "heads must be 1, got 2"),
        ({"quantize_dropout_cutoff_index": -1}, "quantize_dropout_cutoff_index must be at least"),
    ],
)
def test_what_theirs_refuses_is_refused_by_name(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualSimVQ(dim=D, num_quantizers=2, codebook_size=K, **arguments)


def test_they_convert_and_come_back() -> None:
    torch.manual_seed(0)
    model = nn.ModuleList(
        [
            library.SimVQ(dim=D, codebook_size=K, commitment_weight=0.5),
            library.SimVQ(dim=D, codebook_size=K, codebook_transform=mlp(), channel_first=True),
            library.ResidualSimVQ(
                dim=D,
                num_quantizers=3,
                codebook_size=K,
                rotation_trick=False,
                commitment_weight=2.0,
            ),
        ]
    )
    parameters, state = list(model.parameters()), dict(model.state_dict())
    inputs = [torch.randn(2, 9, D), torch.randn(2, D, 9), torch.randn(2, 9, D)]
    expected = [module(x) for module, x in zip(model, inputs, strict=True)]
    report = vq.convert(model)
    assert [entry.new is not None for entry in report] == [True] * 3
    assert [type(module) for module in model] == [SimVQ, SimVQ, ResidualSimVQ]
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    for module, x, out in zip(model, inputs, expected, strict=True):
        assert_same_output(module(x), out)
    vq.revert(model)
    assert [type(module) for module in model] == [
        *(library.SimVQ, library.SimVQ, library.ResidualSimVQ)
    ]
    assert all(new is old for new, old in zip(model.parameters(), parameters, strict=True))
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ((K + 1, D), "wrong_num_embeddings"),
        ((K, D - 1), "wrong_embedding_dim"),
        ((D, K), "transposed_codebook"),
    ],
)
def test_a_bad_checkpoint_is_named(shape: tuple[int, int], code: str) -> None:
    module = SimVQ(D, K)
    bad = {**module.state_dict(), "frozen_codebook": torch.zeros(shape)}
    with pytest.raises(CheckpointError) as caught:
        module.load_state_dict(bad)
    assert caught.value.code == code


def test_they_compile_whole() -> None:
    ours, _ = pair("SimVQ", dim=D, codebook_size=K)
    x = torch.randn(SEQUENCE)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    assert_same_output(compiled(x), ours(x))
