"""rosinality/vq-vae-2-pytorch: what its quantizer does, ours does."""

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
    with_margin,
)
from compat.specimens import rosinality as theirs
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import CheckpointError, check_checkpoint
from vqkernels.compat.rosinality import Quantize

D, K = 6, 32
STATE = ("embed", "cluster_size", "embed_avg")


def pair(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    return images.twins(Quantize(D, K), theirs.Quantize(D, K))


def near(module: nn.Module, seed: int = 0) -> Tensor:
    """(2, 8, 8, D)."""
    return with_margin(module.embed.T.contiguous(), 128, seed).view(2, 8, 8, D)


def call(module: nn.Module, x: Tensor) -> Any:
    return module(x)


@pytest.mark.parametrize("shape", [(40, D), (3, 5, D), (2, 5, 7, D)])
def test_codes_values_losses_and_gradients_are_theirs(shape: tuple[int, ...]) -> None:
    one, other = pair()
    codes = other.embed.T.clone()
    x = torch.randn(shape)
    (got, diff, indices), grad, _ = gradients(one, x, call)
    (expected, other_diff, other_indices), other_grad, _ = gradients(other, x, call)
    assert assert_same_codes(indices, other_indices, x.reshape(-1, D), codes) == []
    assert indices.shape == other_indices.shape
    assert_in_one_band(got, expected, terms=float(x.abs().max()))
    assert_in_one_band(diff, other_diff)
    assert_in_one_band(grad, other_grad)


def test_images_that_were_permuted_are_read_where_they_lie() -> None:
    one, other = pair()
    x = near(other).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    images.assert_alike(one(x), other(x))


def test_fifty_steps_keep_the_two_together() -> None:
    one, other = pair()
    images.settled(other, *STATE, rows_per_code=4.0)
    assert_steps_agree(one, other, [near(other, seed) for seed in range(50)])


def test_in_the_first_step_codes_that_no_row_has_chosen_fly_off_as_theirs_do() -> None:
    one, other = pair()
    x = with_margin(other.embed.T[:4].contiguous(), 64)
    one(x)
    other(x)
    for name in STATE:
        assert_in_one_band(one.state_dict()[name], other.state_dict()[name])
    assert one.embed[:, 4:].abs().amax(0).min() > 100 * x.abs().max()


def test_evaluation_is_theirs_and_moves_nothing() -> None:
    one, other = (module.eval() for module in pair())
    before = copy.deepcopy(one.state_dict())
    x = near(other)
    images.assert_alike(one(x), other(x))
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


def test_indices_become_codes_as_theirs_do() -> None:
    one, other = pair()
    indices = torch.randint(K, (2, 3, 4))
    assert torch.equal(one.embed_code(indices), other.embed_code(indices))


def test_a_checkpoint_of_ours_loads_strictly_into_theirs() -> None:
    one, _ = pair()
    one(torch.randn(2, 4, 4, D))
    _, other = pair(seed=1)
    other.load_state_dict(one.state_dict())
    assert list(one.state_dict()) == list(other.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(value, one.state_dict()[name])
    x = near(other)
    one.eval()
    other.eval()
    images.assert_alike(one(x), other(x))


def test_a_seed_draws_their_codes_and_leaves_the_generator_where_they_do() -> None:
    states, after = [], []
    for kind in (Quantize, theirs.Quantize):
        torch.manual_seed(0)
        states.append(kind(D, K).state_dict())
        after.append(torch.rand(1))
    assert torch.equal(after[0], after[1])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_attributes_show_what_they_do_in_theirs() -> None:
    one, other = pair()
    for name in ("dim", "n_embed", "decay", "eps"):
        assert getattr(one, name) == getattr(other, name)
    one(torch.randn(2, 4, 4, D))
    for name in STATE:
        assert torch.equal(getattr(one, name), one.state_dict()[name])
    one.embed.zero_()
    assert not one.codebook.any()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda embed: embed.T, "transposed_codebook"),
        (lambda embed: embed[:, 1:], "wrong_num_embeddings"),
        (lambda embed: embed[1:], "wrong_embedding_dim"),
    ],
)
def test_a_codebook_that_does_not_fit_is_named(spoil: Any, code: str) -> None:
    one, other = pair()
    state = {**other.state_dict(), "embed": spoil(other.embed)}
    before = copy.deepcopy(one.state_dict())
    with pytest.raises(CheckpointError) as caught:
        one.load_state_dict(state)
    assert caught.value.code == code
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


def test_a_wrong_width_is_refused_before_anything_moves() -> None:
    one, _ = pair()
    before = copy.deepcopy(one.state_dict())
    with pytest.raises(ValueError, match="input must have size 6 in dimension 3"):
        one(torch.zeros(2, 4, 4, D + 1))
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


def test_a_step_compiles_into_one_graph() -> None:
    one, other = pair()
    images.settled(other, *STATE, rows_per_code=4.0)
    one.load_state_dict(other.state_dict())
    x = near(other)
    one(x), other(x)  # the first step looks whether there are other ranks
    got = torch.compile(one, fullgraph=True, backend="aot_eager")(x)
    images.assert_alike(got, other(x))
    for name in STATE:
        assert_in_one_band(one.state_dict()[name], other.state_dict()[name])


def test_a_model_of_their_making_converts_trains_and_reverts() -> None:
    torch.manual_seed(0)
    model = theirs.VQVAE()
    image = torch.randn(2, 3, 16, 16)
    model(image)
    model.eval()
    before = [value.detach() for value in (*model(image), *model.encode(image)[3:])]
    report = vq.convert(model)
    assert [entry.path for entry in report.converted] == ["quantize_t", "quantize_b"]
    assert isinstance(model.quantize_t, Quantize)
    after = (*model(image), *model.encode(image)[3:])
    images.assert_alike(after, before)
    decoded = model.decode_code(*after[2:])
    assert_in_one_band(decoded, before[0])
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        output, diff = model(image)
        loss = (output - image).square().mean() + 0.25 * diff.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    present = copy.deepcopy(model.state_dict())
    assert len(vq.revert(model).converted) == 2
    assert type(model.quantize_b) is theirs.Quantize
    assert all(torch.equal(value, present[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_that_a_wrapper_wrote_is_named() -> None:
    model = theirs.VQVAE()
    vq.convert(model)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        check_checkpoint(model, state)
    assert caught.value.code == "module_prefix"
