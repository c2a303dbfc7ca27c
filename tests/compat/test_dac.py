"""vqkernels.compat.dac against descript-audio-codec 1.0.0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compat import agreement, libraries
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import dac as ours

theirs = libraries.dac_quantize()

C, K, D, LEVELS, B, N = 12, 32, 4, 3, 4, 40


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    """A module of theirs and ours with its state."""
    options = {"input_dim": C, "codebook_size": K, "codebook_dim": D, **options}
    if name == "ResidualVectorQuantize":
        options = {"n_codebooks": LEVELS, **options}
    torch.manual_seed(0)
    there = getattr(theirs, name)(**options)
    here = getattr(ours, name)(**options)
    here.load_state_dict(there.state_dict(), strict=True)
    return here, there


def batch(seed: int = 1) -> Tensor:
    return torch.randn(B, C, N, generator=torch.Generator().manual_seed(seed))


def copyable(module: nn.Module) -> nn.Module:
    """Old-style weight_norm keeps a weight with its graph, until a call that makes none."""
    training = module.training
    with torch.no_grad():
        module.eval()(batch())
    return module.train(training)


def call(module: nn.Module, x: Tensor) -> Any:
    torch.manual_seed(5)  # quantizer dropout draws
    return module(x)


def loss_and_codes(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    z_q, codes, _, commitment, codebook = call(module, x)
    return (z_q - x).square().mean() + 0.25 * commitment + codebook, codes


def assert_alike(out: Any, expected: Any) -> None:
    for one, other in zip(out, expected, strict=True):
        if other.is_floating_point():
            agreement.assert_in_one_band(one, other, terms=4.0)
        else:
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["VectorQuantize", "ResidualVectorQuantize"])
def test_a_new_module_has_their_state_and_draws_it_in_their_order(name: str) -> None:
    here, there = pair(name)
    options = {"input_dim": C, "codebook_size": K, "codebook_dim": D}
    torch.manual_seed(0)
    if name == "ResidualVectorQuantize":
        options["n_codebooks"] = LEVELS
    new = getattr(ours, name)(**options).state_dict()
    assert list(new) == list(there.state_dict())
    for key, value in there.state_dict().items():
        assert torch.equal(new[key], value), key
    there.load_state_dict(here.state_dict(), strict=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"quantizer_dropout": 0.5}, {"quantizer_dropout": 1.0}, {"codebook_dim": [4, 2, 3]}],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_a_call_gives_their_values_and_gradients(options: dict[str, Any], training: bool) -> None:
    here, there = (m.train(training) for m in pair("ResidualVectorQuantize", **options))
    out, grad, weights = agreement.gradients(here, batch(), call)
    expected, expected_grad, expected_weights = agreement.gradients(there, batch(), call)
    assert_alike(out, expected)
    agreement.assert_in_one_band(grad, expected_grad)
    assert weights.keys() == expected_weights.keys()
    for name, weight in expected_weights.items():
        agreement.assert_in_one_band(weights[name], weight, terms=50.0)


def test_the_codes_are_raw_rows_and_the_losses_one_per_element() -> None:
    here, there = pair("VectorQuantize")
    _, commitment, codebook, indices, z_e = here(batch())
    assert commitment.shape == codebook.shape == (B,)
    rows, again = here.decode_latents(z_e)
    assert torch.equal(again, indices)
    assert torch.equal(rows, here.codebook.weight[indices].transpose(1, 2))
    assert torch.equal(here.decode_code(indices), there.decode_code(indices))
    off = agreement.assert_same_codes(
        indices,
        there(batch())[3],
        z_e.transpose(1, 2).reshape(-1, D),
        here.codebook.weight,
        metric="cosine",
    )
    assert not off


def test_fifty_steps_stay_in_step() -> None:
    here, there = pair("ResidualVectorQuantize", quantizer_dropout=0.5)
    here, there = copyable(here), copyable(there)
    batches = [batch(seed) for seed in range(50)]
    agreement.assert_steps_agree(here, there, batches, loss_and_codes, terms=1.0)


@pytest.mark.parametrize("levels", [1, 2, None])
def test_evaluation_takes_as_many_levels_as_asked(levels: int | None) -> None:
    here, there = (module.eval() for module in pair("ResidualVectorQuantize"))
    out = here(batch(), levels)
    assert out[1].shape == (B, levels or LEVELS, N)
    assert_alike(out, there(batch(), levels))


def test_codes_and_latents_go_back_as_theirs() -> None:
    here, there = (m.eval() for m in pair("ResidualVectorQuantize", codebook_dim=[4, 2, 3]))
    _, codes, latents, _, _ = there(batch())
    assert_alike(here.from_codes(codes), there.from_codes(codes))
    assert_alike(here.from_codes(codes[:, :2]), there.from_codes(codes[:, :2]))
    assert_alike(here.from_latents(latents), there.from_latents(latents))
    assert_alike(here.from_latents(latents[:, :7]), there.from_latents(latents[:, :7]))


def test_a_row_that_is_not_finite_shows() -> None:
    here, _ = pair("VectorQuantize")
    x = batch()
    x[0, 0, 3] = torch.nan
    quantized, commitment, _, indices, _ = here(x)
    assert indices[0, 3] == 0
    assert quantized[0, :, 3].isnan().all()
    assert quantized[0, :, 4].isfinite().all()
    assert commitment.isnan().tolist() == [True, False, False, False]


def test_a_step_compiles_in_one_graph() -> None:
    here, _ = pair("ResidualVectorQuantize")
    for level in here.quantizers:  # as their library does for inference: hooks break graphs
        for convolution in (level.in_proj, level.out_proj):
            torch.nn.utils.remove_weight_norm(convolution)
    x = batch()
    compiled = torch.compile(here, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(x), here(x), strict=True):
        assert torch.equal(one, other)


def test_a_codebook_of_another_width_is_refused_by_name() -> None:
    here, _ = pair("ResidualVectorQuantize")
    state = here.state_dict()
    state["quantizers.1.codebook.weight"] = torch.zeros(K, D + 1)
    with pytest.raises(vq.compat.CheckpointError) as error:
        here.load_state_dict(state)
    assert error.value.code == "wrong_embedding_dim"


def test_bad_input_is_refused() -> None:
    here, _ = pair("VectorQuantize")
    with pytest.raises(ValueError, match="x must have"):
        here.decode_latents(torch.zeros(B, D + 1, N))


def test_a_converted_model_keeps_its_parameters_and_reverts() -> None:
    _, there = pair("ResidualVectorQuantize", quantizer_dropout=0.5)
    model = nn.ModuleDict({"encoder": nn.Conv1d(1, C, 4), "quantizer": copyable(there)})
    original = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    vq.convert(model)
    assert type(model["quantizer"]) is ours.ResidualVectorQuantize
    sound = torch.randn(B, 1, N)
    steps = (optimizer, torch.optim.SGD(original.parameters(), lr=1e-3))
    for module, step in zip((model, original), steps, strict=True):
        for _ in range(3):
            loss, _ = loss_and_codes(module["quantizer"], module["encoder"](sound))
            step.zero_grad()
            loss.backward()
            step.step()
    for name, value in original.state_dict().items():
        agreement.assert_in_one_band(model.state_dict()[name], value, terms=1.0)
    model["quantizer"].quantizer_dropout = 0.25
    vq.revert(model)
    assert type(model["quantizer"]) is theirs.ResidualVectorQuantize
    assert model["quantizer"].quantizer_dropout == 0.25
    model.eval()
    original.eval()
    z = batch()
    assert_alike(model["quantizer"](z), original["quantizer"](z))
