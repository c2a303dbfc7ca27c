"""diffusers: what its VectorQuantizer does, ours does, alone and in a VQModel."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compat import images
from compat.agreement import (
    assert_in_one_band,
    assert_same_codes,
    assert_steps_agree,
    gradients,
)
from diffusers import VQModel
from diffusers.models.autoencoders.vae import VectorQuantizer as Theirs
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat.diffusers import VectorQuantizer

K, D = 32, 6
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sane shape": {"sane_index_shape": True},
    "beta on the commitment": {"legacy": False, "beta": 0.5},
}


def pair(seed: int = 0, **options: Any) -> tuple[VectorQuantizer, Theirs]:
    torch.manual_seed(seed)
    arguments = {"n_e": K, "vq_embed_dim": D, "beta": 0.25, **options}
    one, other = VectorQuantizer(**arguments), Theirs(**arguments)
    images.twins(one, other)
    return one, other


def call(module: nn.Module, x: Tensor) -> Any:
    return module(x)


@pytest.mark.parametrize("name", OPTIONS)
def test_codes_values_losses_and_gradients_are_theirs(name: str) -> None:
    one, other = pair(**OPTIONS[name])
    codes = other.embedding.weight.detach()
    z = torch.randn(2, D, 5, 7) * codes.std()
    (got, loss, info), grad, parameters = gradients(one, z, call)
    (expected, other_loss, other_info), other_grad, other_parameters = gradients(other, z, call)
    assert assert_same_codes(info[2], other_info[2], images.rows_of(z), codes) == []
    assert info[2].shape == other_info[2].shape
    assert info[:2] == other_info[:2] == (None, None)
    assert_in_one_band(got, expected, terms=float(z.abs().max()))
    assert_in_one_band(loss, other_loss)
    assert_in_one_band(grad, other_grad)
    assert_in_one_band(parameters["embedding.weight"], other_parameters["embedding.weight"])


def test_rows_far_from_zero_have_codes_that_theirs_misses() -> None:
    """The rows where the two differ are those where theirs is not the float64 argmin."""
    one, other = pair()
    with torch.no_grad():
        other.embedding.weight.normal_().add_(1000.0)
    one.load_state_dict(other.state_dict())
    z = torch.randn(2, D, 8, 8) + 1000.0
    indices, other_indices = one(z)[2][2], other(z)[2][2]
    codes = other.embedding.weight
    wrong = assert_same_codes(indices, other_indices, images.rows_of(z), codes)
    assert wrong == (indices != other_indices).nonzero().flatten().tolist()
    assert wrong


@pytest.mark.parametrize("name", OPTIONS)
def test_fifty_steps_keep_the_two_together(name: str) -> None:
    one, other = pair(**OPTIONS[name])
    batches = [images.near(other.embedding.weight, seed) for seed in range(50)]
    assert_steps_agree(one, other, batches)


@pytest.mark.parametrize("name", OPTIONS)
def test_checkpoints_load_strictly_both_ways(name: str) -> None:
    one, _ = pair(**OPTIONS[name])
    _, other = pair(seed=1, **OPTIONS[name])
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.embedding.weight, one.embedding.weight)


def test_a_seed_draws_their_codes() -> None:
    torch.manual_seed(0)
    one = VectorQuantizer(K, D, 0.25)
    torch.manual_seed(0)
    assert torch.equal(one.embedding.weight, Theirs(K, D, 0.25).embedding.weight)


@pytest.mark.parametrize("shape", [None, (2, 3, 4, D)])
def test_codes_come_back_as_images(shape: tuple[int, ...] | None) -> None:
    one, other = pair()
    indices = torch.randint(K, (24,))
    got = one.get_codebook_entry(indices, shape)
    assert torch.equal(got, other.get_codebook_entry(indices, shape))


@pytest.mark.parametrize("sane", [False, True])
@pytest.mark.parametrize("unknown", ["extra", 2])
def test_indices_are_remapped_as_theirs(tmp_path: Path, unknown: Any, sane: bool) -> None:
    np.save(tmp_path / "used.npy", np.array([9, 3, 3, 20, 0, 31, 17]))
    options = {"remap": str(tmp_path / "used.npy"), "unknown_index": unknown}
    one, other = pair(**options, sane_index_shape=sane)
    z = images.near(other.embedding.weight, batch=4)
    got, expected = one(z)[2][2], other(z)[2][2]
    assert torch.equal(got, expected)
    assert one.re_embed == other.re_embed
    shape = (4, images.SIDE, images.SIDE, D)
    # theirs writes over the indices it is given
    entries = other.get_codebook_entry(expected.clone(), shape)
    assert torch.equal(one.get_codebook_entry(got, shape), entries)
    model = nn.Sequential(other)
    assert vq.convert(model).converted
    assert torch.equal(model(z)[2][2], expected)
    assert vq.revert(model).converted
    assert torch.equal(model(z)[2][2], expected)


def test_a_remapped_entry_needs_a_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "used.npy", np.arange(4))
    one, _ = pair(remap=str(tmp_path / "used.npy"))
    with pytest.raises(ValueError, match=r"shape must be \(B, H, W, D\) with remap, got None"):
        one.get_codebook_entry(torch.zeros(4, dtype=torch.int64), None)


def test_a_remap_whose_file_is_gone_is_left(tmp_path: Path) -> None:
    np.save(tmp_path / "used.npy", np.arange(4))
    _, other = pair(remap=str(tmp_path / "used.npy"))
    (tmp_path / "used.npy").unlink()
    (entry,) = vq.convert(nn.Sequential(other)).left
    assert "used.npy" in str(entry.reason)


def test_a_remapped_step_allocates_nothing_of_the_size_of_all_pairs(tmp_path: Path) -> None:
    used = 4096
    np.save(tmp_path / "used.npy", np.arange(used))
    module = VectorQuantizer(used, D, 0.25, remap=str(tmp_path / "used.npy"))
    z = torch.randn(1, D, 64, 64)
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
        module(z)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < used * 64 * 64 // 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_results_have_their_dtypes(dtype: torch.dtype) -> None:
    one, other = pair()
    z = images.near(other.embedding.weight).to(dtype)
    for module in (one, other):
        module.to(dtype)
    got, loss, _ = one(z)
    assert got.dtype == loss.dtype == dtype
    one.float()
    got, loss, _ = one(z)
    assert got.dtype == loss.dtype == torch.float32
    expected = other.float()(z.float())
    assert_in_one_band(got, expected[0])


def test_a_wrong_width_names_the_argument() -> None:
    one, _ = pair()
    with pytest.raises(ValueError, match="z must have size 6 in dimension 1"):
        one(torch.zeros(1, D + 1, 2, 2))


def test_a_step_compiles_into_one_graph() -> None:
    one, other = pair()
    z = images.near(other.embedding.weight)
    got, expected = torch.compile(one, fullgraph=True, backend="aot_eager")(z), other(z)
    assert torch.equal(got[2][2], expected[2][2])
    assert_in_one_band(got[1], expected[1])


def model_of(**options: Any) -> VQModel:
    torch.manual_seed(0)
    return VQModel(block_out_channels=(32,), norm_num_groups=8, num_vq_embeddings=64, **options)


@pytest.mark.parametrize("options", [{}, {"vq_embed_dim": 8}, {"norm_type": "spatial"}])
def test_a_model_evaluates_the_same_before_and_after(options: dict[str, Any]) -> None:
    model = model_of(**options).eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = model(x)
        codes = model.quantize(model.encode(x).latents)[2][2]
        assert vq.convert(model).converted
        after = model(x)
        assert torch.equal(model.quantize(model.encode(x).latents)[2][2], codes)
    # straight-through is exact with us, and one rounding off with them, which norms amplify
    torch.testing.assert_close(after.sample, before.sample, rtol=1e-4, atol=1e-5)
    assert_in_one_band(after.commit_loss, before.commit_loss)


def test_a_converted_model_trains_step_by_step_as_theirs() -> None:
    other = model_of()
    model = copy.deepcopy(other)
    vq.convert(model)
    x = torch.randn(1, 3, 8, 8)
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}
    for name, module in (("ours", model), ("theirs", other)):
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-2)
        for _ in range(3):
            decoded, commitment = module(x, return_dict=False)
            loss = (decoded - x).square().mean() + commitment
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    assert losses["ours"][-1] < losses["ours"][0]
    assert losses["ours"] == pytest.approx(losses["theirs"], rel=1e-4)


def test_a_saved_model_of_theirs_is_what_a_converted_one_loads(tmp_path: Path) -> None:
    other = model_of()
    other.save_pretrained(tmp_path / "theirs")
    model = VQModel.from_pretrained(tmp_path / "theirs")
    vq.convert(model)
    model.save_pretrained(tmp_path / "ours")
    again = VQModel.from_pretrained(tmp_path / "ours")
    assert type(again.quantize) is Theirs
    assert torch.equal(again.quantize.embedding.weight, other.quantize.embedding.weight)
