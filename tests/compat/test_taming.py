"""taming-transformers: what its quantizers do, ours do."""

from __future__ import annotations

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
from compat.specimens import taming as theirs
from compat.specimens import vqgan
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import taming as ours
from vqkernels.compat._one_hot import OneHot

K, D = 32, 6
LEGACY = {"n_e": K, "e_dim": D, "beta": 0.25}
CASES = {
    "first": ("VectorQuantizer", LEGACY),
    "second": ("VectorQuantizer2", LEGACY),
    "second, sane shape": ("VectorQuantizer2", {**LEGACY, "sane_index_shape": True}),
    "second, beta on the commitment": ("VectorQuantizer2", {**LEGACY, "legacy": False}),
    "ema": ("EMAVectorQuantizer", {"n_embed": K, "embedding_dim": D, "beta": 0.25}),
}


def pair(case: str, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    name, arguments = CASES[case]
    torch.manual_seed(seed)
    return images.twins(getattr(ours, name)(**arguments), getattr(theirs, name)(**arguments))


def call(module: nn.Module, x: Tensor) -> Any:
    return module(x)


@pytest.mark.parametrize("case", CASES)
def test_codes_values_losses_and_gradients_are_theirs(case: str) -> None:
    one, other = pair(case)
    codes = other.embedding.weight.detach().clone()
    z = torch.randn(2, D, 5, 7) * codes.std()
    (got, loss, info), grad, parameters = gradients(one, z, call)
    (expected, other_loss, other_info), other_grad, other_parameters = gradients(other, z, call)
    assert assert_same_codes(info[2], other_info[2], images.rows_of(z), codes) == []
    assert info[2].shape == other_info[2].shape
    assert_in_one_band(got, expected, terms=float(z.abs().max()))
    assert_in_one_band(loss, other_loss)
    assert_in_one_band(grad, other_grad)
    for name in other_parameters.keys() & parameters.keys():
        if other_parameters[name] is not None:
            assert_in_one_band(parameters[name], other_parameters[name])
    for value, other_value in zip(info[:2], other_info[:2], strict=True):
        if other_value is None:
            assert value is None
        else:
            assert_in_one_band(value, other_value)


@pytest.mark.parametrize("case", CASES)
def test_fifty_steps_keep_the_two_together(case: str) -> None:
    one, other = pair(case)
    if case == "ema":
        images.settled(other.embedding, "weight", "cluster_size", "embed_avg", rows_per_code=4.0)
    batches = [images.near(other.embedding.weight, seed) for seed in range(50)]
    assert_steps_agree(one, other, batches)


@pytest.mark.parametrize("case", CASES)
def test_evaluation_is_theirs_and_moves_nothing(case: str) -> None:
    one, other = pair(case)
    one.eval()
    other.eval()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    z = images.near(other.embedding.weight)
    got, expected = one(z), other(z)
    assert torch.equal(got[2][2], expected[2][2])
    assert_in_one_band(got[0], expected[0])
    assert_in_one_band(got[1], expected[1])
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_of_ours_loads_strictly_into_theirs(case: str) -> None:
    one, _ = pair(case)
    _, other = pair(case, seed=1)
    other.load_state_dict(one.state_dict())
    state = one.state_dict()
    for name, value in other.state_dict().items():
        assert torch.equal(value, state[name])
        assert value.dtype == state[name].dtype


@pytest.mark.parametrize("case", CASES)
def test_a_seed_draws_their_codes_and_leaves_the_generator_where_they_do(case: str) -> None:
    name, arguments = CASES[case]
    states, after = [], []
    for library in (ours, theirs):
        torch.manual_seed(0)
        states.append(getattr(library, name)(**arguments).state_dict())
        after.append(torch.rand(1))
    assert torch.equal(after[0], after[1])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("shape", [None, (2, 3, 4, D)])
@pytest.mark.parametrize("case", ["first", "second"])
def test_codes_come_back_as_images(case: str, shape: tuple[int, ...] | None) -> None:
    one, other = pair(case)
    indices = torch.randint(K, (24,))
    got, expected = (module.get_codebook_entry(indices, shape) for module in (one, other))
    assert torch.equal(got, expected)
    assert got.is_contiguous()


def remapped(tmp_path: Path, **options: Any) -> tuple[nn.Module, nn.Module]:
    used = np.array([9, 3, 3, 20, 0, 31, 17])
    np.save(tmp_path / "used.npy", used)
    arguments = {**LEGACY, "remap": str(tmp_path / "used.npy"), **options}
    return images.twins(ours.VectorQuantizer2(**arguments), theirs.VectorQuantizer2(**arguments))


@pytest.mark.parametrize("sane", [False, True])
@pytest.mark.parametrize("unknown", ["extra", 5])
def test_indices_are_remapped_as_theirs(tmp_path: Path, unknown: Any, sane: bool) -> None:
    one, other = remapped(tmp_path, unknown_index=unknown, sane_index_shape=sane)
    assert one.re_embed == other.re_embed
    z = images.near(other.embedding.weight, batch=4)
    got, expected = one(z)[2][2], other(z)[2][2]
    assert torch.equal(got, expected)
    assert len(expected.unique()) > 3
    shape = (4, images.SIDE, images.SIDE, D)
    assert torch.equal(one.get_codebook_entry(got, shape), other.get_codebook_entry(got, shape))


def test_any_integers_are_remapped_as_theirs(tmp_path: Path) -> None:
    one, other = remapped(tmp_path, unknown_index=5)
    inds = torch.arange(-3, 47).view(2, 25)
    assert torch.equal(one.remap_to_used(inds), other.remap_to_used(inds))


def test_unknown_indices_may_be_drawn(tmp_path: Path) -> None:
    one, _ = remapped(tmp_path)
    inds = torch.full((2, 200), 1)
    inds[:, :2] = torch.tensor([9, 17])
    torch.manual_seed(0)
    drawn = one.remap_to_used(inds)
    assert torch.equal(drawn[:, :2], torch.tensor([[0, 6], [0, 6]]))
    assert sorted(drawn[:, 2:].unique().tolist()) == list(range(7))


def test_the_extra_place_comes_back_as_the_first_and_the_argument_stays(tmp_path: Path) -> None:
    one, _ = remapped(tmp_path, unknown_index="extra")
    inds = torch.tensor([[7, 0], [5, 3]])
    assert one.unmap_to_all(inds).tolist() == [[9, 9], [31, 20]]
    assert inds.tolist() == [[7, 0], [5, 3]]


def test_a_remapping_quantizer_converts(tmp_path: Path) -> None:
    for unknown in ("random", "extra", 2):
        _, other = remapped(tmp_path, unknown_index=unknown)
        used = other.used
        model = nn.Sequential(other)
        if unknown == "random":  # two draws differ, so there is no telling
            other.unknown_index = 0
        assert vq.convert(model).converted
        assert model[0].used is used
        assert model[0].re_embed == other.re_embed


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(3)]
)
def test_a_file_without_a_vector_of_integers_is_refused(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "used.npy", array)
    with pytest.raises(ValueError, match="remap must hold a vector of at least one integer"):
        ours.VectorQuantizer2(**LEGACY, remap=tmp_path / "used.npy")


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.int8, np.uint8])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_a_file_may_hold_any_integers(tmp_path: Path, dtype: Any, version: Any) -> None:
    used = np.array([9, 3, 20], dtype=dtype)
    with open(tmp_path / "used.npy", "wb") as file:
        np.lib.format.write_array(file, used, version=version)
    made = ours.VectorQuantizer2(**LEGACY, remap=tmp_path / "used.npy")
    assert torch.equal(made.used, torch.from_numpy(used))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "used.txt").write_text("9 3 20")
    with pytest.raises(ValueError, match=r"remap must be a \.npy file, got '.*used.txt'"):
        ours.VectorQuantizer2(**LEGACY, remap=tmp_path / "used.txt")
    with pytest.raises(FileNotFoundError):
        ours.VectorQuantizer2(**LEGACY, remap=tmp_path / "nothing.npy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temp": 0.5}, "temp must be None or 1.0, got 0.5"),
        ({"rescale_logits": True}, "rescale_logits must be False, got True"),
        ({"return_logits": True}, "return_logits must be False, got True"),
    ],
)
def test_what_only_gumbel_can_do_is_refused(arguments: dict[str, Any], message: str) -> None:
    one, _ = pair("second")
    with pytest.raises(ValueError, match=message):
        one(torch.zeros(1, D, 2, 2), **arguments)
    one(torch.zeros(1, D, 2, 2), temp=1.0, rescale_logits=False, return_logits=False)


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_width_names_the_argument(case: str) -> None:
    one, _ = pair(case)
    with pytest.raises(ValueError, match="z must have size 6 in dimension 1"):
        one(torch.zeros(1, D + 1, 2, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_e": 0}, "n_e must be at least 1, got 0"),
        ({"beta": -1.0}, "beta must be at least 0, got -1.0"),
        ({"unknown_index": "none"}, "unknown_index must be one of"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours.VectorQuantizer2(**{**LEGACY, **change})


def test_results_have_the_dtype_and_layout_that_torch_promotes_to() -> None:
    for dtype, codes in [(torch.half, torch.float32), (torch.bfloat16, torch.bfloat16)]:
        one, other = (module.to(codes) for module in pair("second"))
        z = images.near(other.embedding.weight.float()).to(
            dtype, memory_format=torch.channels_last
        )
        got = one(z)
        assert got[0].dtype == got[1].dtype == torch.promote_types(dtype, codes)
        assert got[0].is_contiguous()


def test_the_one_hot_matrix_is_not_built_for_the_rest() -> None:
    for case in ("first", "ema"):
        one, _ = pair(case)
        _, _, (_, encodings, indices) = one(torch.randn(2, D, 4, 4))
        assert isinstance(encodings, OneHot)
        assert encodings._built is None
        assert torch.equal(encodings.argmax(1), indices.flatten())


@pytest.mark.parametrize("case", CASES)
def test_a_step_compiles_into_one_graph(case: str) -> None:
    one, other = pair(case)
    z = images.near(other.embedding.weight)
    if case == "ema":
        one(z), other(z)  # the first step looks whether there are other ranks
    expected = other(z)
    got = torch.compile(one, fullgraph=True, backend="aot_eager")(z)
    assert torch.equal(got[2][2], expected[2][2])
    assert_in_one_band(got[1], expected[1])
    if expected[2][1] is not None:
        assert_in_one_band(got[2][1], expected[2][1])


def test_averages_and_codes_have_the_names_that_theirs_would_have() -> None:
    one, _ = pair("ema")
    one(torch.randn(2, D, 4, 4))
    state = one.state_dict()
    assert list(state) == ["embedding.weight", "embedding.cluster_size", "embedding.embed_avg"]
    for name in ("weight", "cluster_size", "embed_avg"):
        assert torch.equal(getattr(one.embedding, name), state[f"embedding.{name}"])
    indices = torch.tensor([[3, 1]])
    assert torch.equal(one.embedding(indices), state["embedding.weight"][indices])
    assert (one.embedding.decay, one.embedding.eps) == (0.99, 1e-5)


def test_what_the_averaging_quantizer_does_not_serve_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="EMAVectorQuantizer: remap="):
        ours.EMAVectorQuantizer(K, D, 0.25, remap="used.npy")
    one, other = pair("ema")
    with pytest.raises(NotImplementedError, match="EmbeddingEMA: update=False"):
        one.embedding.update = False
    other.embedding.update = False
    (entry,) = vq.convert(nn.Sequential(other)).left
    assert "update=False is not served" in str(entry.reason)


@pytest.mark.parametrize("case", CASES)
def test_a_model_of_their_making_converts_trains_and_reverts(case: str) -> None:
    _, other = pair(case)
    model = vqgan.VQModel(other, embed_dim=D)
    image = torch.randn(2, 3, 16, 16)
    model.eval()
    before = [value.detach() for value in model(image)]
    (entry,) = vq.convert(model).converted
    assert entry.path == "quantize"
    assert entry.new == f"vqkernels.compat.taming.{type(other).__name__}"
    for got, expected in zip(model(image), before, strict=True):
        assert_in_one_band(got, expected)
    model.train()
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learnt, lr=1e-2)
    losses = []
    for _ in range(10):
        output, loss = model(image)
        total = (output - image).square().mean() + loss
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0]
    present = model.quantize.state_dict()
    assert vq.revert(model).converted
    assert type(model.quantize) is type(other)
    for name, value in model.quantize.state_dict().items():
        assert torch.equal(value, present[name])


@pytest.mark.parametrize("module", [__name__, "taming.modules.vqvae.quantize"])
def test_a_copy_that_weighs_its_loss_differently_is_left(module: str) -> None:
    class VectorQuantizer(theirs.VectorQuantizer):
        def forward(self, z: Tensor) -> tuple:
            quantized, loss, info = super().forward(z)
            return quantized, 2 * loss, info

    VectorQuantizer.__module__, VectorQuantizer.__qualname__ = module, "VectorQuantizer"
    (entry,) = vq.convert(nn.Sequential(VectorQuantizer(**LEGACY))).left
    assert "returned value 1 differs" in str(entry.reason)
