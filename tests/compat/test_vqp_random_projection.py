"""RandomProjectionQuantizer against vector-quantize-pytorch 1.32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import vector_quantize_pytorch as library
from compat import agreement
from compat.vqp_pairs import pair
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import CheckpointError
from vqkernels.compat.vector_quantize_pytorch import RandomProjectionQuantizer

SIZES = {"dim": 20, "codebook_size": 50, "codebook_dim": 7}
OPTIONS: dict[str, dict[str, Any]] = {
    "one codebook": {},
    "three codebooks": {"num_codebooks": 3},
    "without norm": {"norm": False},
    "options without effect": {"num_codebooks": 2, "decay": 0.9, "commitment_weight": 0.0},
}
options = pytest.mark.parametrize("name", OPTIONS)


def _x() -> Tensor:
    return 2.0 * torch.randn(3, 40, 20, generator=torch.Generator().manual_seed(1)) + 1.0


def _heads(theirs: Any, x: Tensor) -> list[Tensor]:
    """What each of their codebooks labels, as rows."""
    projected = torch.einsum("bnd,hde->bnhe", theirs.norm(x), theirs.rand_projs).flatten(-2)
    return list(theirs.vq.project_in(projected).flatten(0, 1).chunk(theirs.num_codebooks, dim=1))


@options
@pytest.mark.parametrize("training", [True, False])
def test_labels_are_theirs(name: str, training: bool) -> None:
    ours, theirs = pair("RandomProjectionQuantizer", **SIZES, **OPTIONS[name])
    ours.train(training)
    x = _x()
    found, expected = ours(x), theirs(x)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    heads = _heads(theirs, x)
    found, expected = (value.reshape(-1, len(heads)) for value in (found, expected))
    for number, rows in enumerate(heads):
        codes = theirs.vq.codebook[number]
        scores = rows.detach().double() @ codes.double().T
        exact = scores.argmax(dim=1)
        assert torch.equal(found[:, number], exact)
        assert (expected[:, number] != exact).float().mean() < 0.01


@options
def test_the_cross_entropy_and_its_gradients_are_theirs(name: str) -> None:
    ours, theirs = pair("RandomProjectionQuantizer", **SIZES, **OPTIONS[name])
    x = _x()
    labels = torch.randint(-1, 50, theirs(x).shape, generator=torch.Generator().manual_seed(2))
    results = []
    for module in (ours, theirs):
        leaf = x.clone().requires_grad_()
        loss = module(leaf, indices=labels)
        inner = list(module.vq.project_in.parameters())
        results.append([loss, *torch.autograd.grad(loss, [leaf, *inner])])
    for one, other in zip(*results, strict=True):
        # A mean over the labels of logits up to 1.
        agreement.assert_in_one_band(one, other, terms=0.01 if one.ndim else 1.0)


def test_nothing_moves_in_training() -> None:
    ours, _ = pair("RandomProjectionQuantizer", **SIZES, num_codebooks=2)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.train()
    for _ in range(3):
        ours(_x())
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name])


def test_it_is_made_with_codes_of_length_one_and_projections_of_xavier() -> None:
    torch.manual_seed(0)
    module = RandomProjectionQuantizer(dim=300, codebook_size=64, codebook_dim=200)
    torch.testing.assert_close(module.vq.codebook.norm(dim=-1), torch.ones(1, 64))
    theirs = library.RandomProjectionQuantizer(dim=300, codebook_size=64, codebook_dim=200)
    std, expected = float(module.rand_projs.std()), float(theirs.rand_projs.std())
    assert std == pytest.approx(expected, rel=0.05)  # of 60000 values each


@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_it_converts_and_comes_back(num_codebooks: int) -> None:
    torch.manual_seed(0)
    made = library.RandomProjectionQuantizer(**SIZES, num_codebooks=num_codebooks)
    model, x = nn.Sequential(made), _x()
    expected, state = model(x), dict(model.state_dict())
    report = vq.convert(model)
    assert type(model[0]) is RandomProjectionQuantizer
    assert [entry.reason for entry in report] == [None]
    assert torch.equal(model(x), expected)
    vq.revert(model)
    assert type(model[0]) is library.RandomProjectionQuantizer
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.parametrize("name", ["kmeans_init", "layernorm_after_project_in", "affine_param"])
def test_options_that_are_not_served_are_refused_by_name(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"RandomProjectionQuantizer: {name}=True is"):
        RandomProjectionQuantizer(**SIZES, **{name: True})


def test_one_that_waits_for_kmeans_is_left() -> None:
    model = nn.Sequential(library.RandomProjectionQuantizer(**SIZES, kmeans_init=True))
    (entry,) = vq.convert(model)
    assert entry.new is None
    assert "kmeans_init=True is not served" in entry.reason


def test_a_bad_checkpoint_is_named() -> None:
    module = RandomProjectionQuantizer(**SIZES)
    bad = {**module.state_dict(), "vq._codebook.embed": torch.zeros(1, 51, 7)}
    with pytest.raises(CheckpointError) as caught:
        module.load_state_dict(bad)
    assert caught.value.code == "wrong_num_embeddings"
