"""zalandoresearch/pytorch-vq-vae and MishaLaskin/vqvae: what their quantizers do, ours do."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compat import images
from compat.agreement import (
    assert_in_one_band,
    assert_same_codes,
    assert_steps_agree,
    gradients,
)
from compat.specimens import mishalaskin as misha_theirs
from compat.specimens import zalando as zalando_theirs
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import CheckpointError, mishalaskin, zalando
from vqkernels.compat._one_hot import OneHot

K, D = 32, 6
CASES: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
    "gradient": (zalando.VectorQuantizer, zalando_theirs.VectorQuantizer, (K, D, 0.25)),
    "averages": (
        zalando.VectorQuantizerEMA,
        zalando_theirs.VectorQuantizerEMA,
        (K, D, 0.25, 0.99, 0.1),  # with the default the smoothed sizes are hardly others
    ),
    "misha": (mishalaskin.VectorQuantizer, misha_theirs.VectorQuantizer, (K, D, 0.25)),
}
STATE = ("_embedding.weight", "_ema_cluster_size", "_ema_w")


def pair(case: str, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    ours, theirs, arguments = CASES[case]
    torch.manual_seed(seed)
    return images.twins(ours(*arguments), theirs(*arguments))


def codes_of(module: nn.Module) -> Tensor:
    held = module.embedding if hasattr(module, "embedding") else module._embedding
    return held.weight.detach().clone()


def call(module: nn.Module, x: Tensor) -> Any:
    return module(x)


@pytest.mark.parametrize("case", CASES)
def test_codes_values_losses_and_gradients_are_theirs(case: str) -> None:
    one, other = pair(case)
    codes = codes_of(other)
    x = torch.randn(2, D, 5, 7) * codes.std()
    got, grad, parameters = gradients(one, x, call)
    expected, other_grad, other_parameters = gradients(other, x, call)
    assert isinstance(got[3], OneHot)
    assert got[3]._built is None
    indices, other_indices = got[3].argmax(1), expected[3].argmax(1)
    assert assert_same_codes(indices, other_indices, images.rows_of(x), codes) == []
    assert len(got) == len(expected)
    for value, other_value in zip(got[:4], expected[:4], strict=True):
        assert_in_one_band(value, other_value, terms=float(x.abs().max()))
    if case == "misha":
        assert torch.equal(got[4], expected[4])
    assert_in_one_band(grad, other_grad)
    name = "embedding.weight" if case == "misha" else "_embedding.weight"
    if case == "averages":
        assert all(gradient is None for gradient in parameters.values())
    else:
        assert_in_one_band(parameters[name], other_parameters[name])


@pytest.mark.parametrize("case", CASES)
def test_fifty_steps_keep_the_two_together(case: str) -> None:
    one, other = pair(case)
    if case == "averages":
        images.settled(other, *STATE, rows_per_code=4.0)
    batches = [images.near(codes_of(other), seed) for seed in range(50)]
    assert_steps_agree(one, other, batches)


def test_the_first_step_takes_the_codes_where_theirs_go() -> None:
    """Sizes start at 0 and ``_ema_w`` apart from the codes: all of them jump."""
    one, other = pair("averages")
    before = codes_of(other)
    x = images.near(before)
    one(x)
    other(x)
    for name, value in other.state_dict().items():
        assert_in_one_band(one.state_dict()[name], value)
    assert (codes_of(other) - before).norm() > 10 * before.norm()


def test_parameters_are_as_many_and_move_in_place() -> None:
    one, other = pair("averages")
    assert sorted(tuple(p.shape) for p in one.parameters()) == sorted(
        tuple(p.shape) for p in other.parameters()
    )
    held = list(one.parameters())
    before = [parameter.detach().clone() for parameter in held]
    optimizer = torch.optim.AdamW(one.parameters(), lr=0.1, weight_decay=0.5)
    optimizer.load_state_dict(torch.optim.AdamW(other.parameters(), lr=0.1).state_dict())
    x = torch.randn(2, D, 4, 4, requires_grad=True)
    loss, _, _, _ = one(x)
    moved = [parameter.detach().clone() for parameter in held]
    loss.backward()
    optimizer.step()
    for parameter, present, old, after in zip(held, one.parameters(), before, moved, strict=True):
        assert parameter is present
        assert not torch.equal(parameter, old)
        assert torch.equal(parameter, after)


@pytest.mark.parametrize("case", CASES)
def test_evaluation_is_theirs_and_moves_nothing(case: str) -> None:
    one, other = (module.eval() for module in pair(case))
    before = copy.deepcopy(one.state_dict())
    x = images.near(codes_of(other))
    images.assert_alike(one(x), other(x))
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_of_ours_loads_strictly_into_theirs(case: str) -> None:
    one, _ = pair(case)
    one(torch.randn(2, D, 4, 4))
    _, other = pair(case, seed=1)
    other.load_state_dict(one.state_dict())
    state = one.state_dict()
    assert list(state) == list(other.state_dict()) or case == "averages"
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("case", CASES)
def test_a_seed_draws_their_codes_and_leaves_the_generator_where_they_do(case: str) -> None:
    ours, theirs, arguments = CASES[case]
    states, after = [], []
    for kind in (ours, theirs):
        torch.manual_seed(0)
        states.append(kind(*arguments).state_dict())
        after.append(torch.rand(1))
    assert torch.equal(after[0], after[1])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_embedding_of_the_averages_shows_the_present_codes() -> None:
    one, _ = pair("averages")
    one(torch.randn(2, D, 4, 4))
    assert torch.equal(one._embedding.weight, one.codebook)
    assert torch.equal(one._embedding(torch.tensor([3])), one.codebook[3:4])
    one._embedding.weight.data.zero_()
    assert not one.codebook.any()
    assert one._ema_w is one.embed_sum
    assert one._ema_cluster_size is one.cluster_size


@pytest.mark.parametrize("case", ["gradient", "averages"])
def test_private_attributes_that_people_read_are_there(case: str) -> None:
    ours, theirs, arguments = CASES[case]
    one, other = ours(*arguments[:4]), theirs(*arguments[:4])
    names = ["_num_embeddings", "_embedding_dim", "_commitment_cost"]
    for name in names + (["_decay", "_epsilon"] if case == "averages" else []):
        assert getattr(one, name) == getattr(other, name)


def test_averages_stay_float32_in_half_precision() -> None:
    one, _ = pair("averages")
    one.half()
    loss, quantized, _, _ = one(torch.randn(2, D, 4, 4, dtype=torch.half))
    assert quantized.dtype == torch.half
    assert loss.dtype == torch.float32
    assert {value.dtype for value in one.state_dict().values()} == {torch.float32}


def test_a_recomputed_step_is_refused_where_theirs_would_count_twice() -> None:
    one, _ = pair("averages")
    x = torch.randn(2, D, 4, 4, requires_grad=True)
    loss = torch.utils.checkpoint.checkpoint(lambda x: one(x)[0], x, use_reentrant=False)
    with pytest.raises(RuntimeError, match="recompute"):
        loss.backward()


@pytest.mark.parametrize("case", CASES)
def test_a_step_compiles_into_one_graph(case: str) -> None:
    one, other = pair(case)
    if case == "averages":
        images.settled(other, *STATE, rows_per_code=4.0)
    x = images.near(codes_of(other))
    if case == "averages":
        one.load_state_dict(other.state_dict())
        one(x), other(x)  # the first step looks whether there are other ranks
    got, expected = torch.compile(one, fullgraph=True, backend="aot_eager")(x), other(x)
    images.assert_alike(got, expected)
    assert {type(value) for value in got} == {Tensor}
    for name, value in other.state_dict().items():
        assert_in_one_band(one.state_dict()[name], value)


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_width_is_refused_before_anything_moves(case: str) -> None:
    one, _ = pair(case)
    before = copy.deepcopy(one.state_dict())
    with pytest.raises(ValueError, match=r"(inputs|z) must have size 6 in dimension 1"):
        one(torch.zeros(1, D + 1, 2, 2))
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_rows_that_are_not_finite_are_seen_and_learn_nothing(case: str) -> None:
    one, _ = pair(case)
    x = images.near(codes_of(one))
    clean, spoilt = copy.deepcopy(one), copy.deepcopy(one)
    broken = torch.cat([x, torch.full((1, D, 8, 8), torch.nan)])
    clean(x)
    loss = spoilt(broken)[0]
    assert loss.isnan()
    for name, value in clean.state_dict().items():
        assert torch.equal(spoilt.state_dict()[name], value)


@pytest.mark.parametrize("case", CASES)
def test_a_transposed_codebook_is_named(case: str) -> None:
    one, _ = pair(case)
    state = one.state_dict()
    name = "embedding.weight" if case == "misha" else "_embedding.weight"
    state[name] = state[name].T
    with pytest.raises(CheckpointError) as caught:
        one.load_state_dict(state)
    assert caught.value.code == "transposed_codebook"


@pytest.mark.parametrize("case", CASES)
def test_a_copy_in_a_model_converts_and_reverts(case: str) -> None:
    _, other = pair(case)
    other(images.near(codes_of(other)))
    model = nn.Sequential(nn.Conv2d(3, D, 1), other).eval()
    image = torch.randn(2, 3, 4, 4)
    before = [value.detach() for value in model(image)]
    (entry,) = vq.convert(model).converted
    assert entry.new == f"{CASES[case][0].__module__}.{CASES[case][0].__name__}"
    images.assert_alike(model(image), before)
    model.train()
    assert model(image)[0].requires_grad
    present = copy.deepcopy(model[1].state_dict())
    assert vq.revert(model).converted
    assert type(model[1]) is CASES[case][1]
    assert all(torch.equal(value, present[name]) for name, value in model[1].state_dict().items())
