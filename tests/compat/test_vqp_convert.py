"""convert and revert on models of vector-quantize-pytorch, and its checkpoints."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as library
from compat import agreement
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import CheckpointError, vector_quantize_pytorch
from vqkernels.compat._carry import carry

D, K = 16, 32
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("VectorQuantize", {}),
    "heads": (
        "VectorQuantize",
        {"heads": 2, "codebook_dim": 4, "separate_codebook_per_head": True, "decay": 0.95},
    ),
    "layernorm": ("VectorQuantize", {"codebook_dim": 4, "layernorm_after_project_in": True}),
    "sampled": (
        "VectorQuantize",
        {
            "use_cosine_sim": True,
            "stochastic_sample_codes": True,
            "sample_codebook_temp": 0.3,
            "rotation_trick": False,
            "straight_through": True,
        },
    ),
    "learnable": (
        "VectorQuantize",
        {"learnable_codebook": True, "ema_update": False, "sync_update_v": 0.2},
    ),
    "orthogonal": (
        "VectorQuantize",
        {"orthogonal_reg_weight": 0.5, "orthogonal_reg_max_codes": 16, "commitment_weight": 0.2},
    ),
    "k-means": ("VectorQuantize", {"kmeans_init": True, "kmeans_iters": 3}),
    "frozen": ("VectorQuantize", {"freeze_codebook": True, "channel_last": True}),
    "residual": ("ResidualVQ", {"num_quantizers": 3, "codebook_dim": 8}),
    "residual, sizes": ("ResidualVQ", {"codebook_size": (32, 16, 8)}),
    "residual, shared": (
        "ResidualVQ",
        {"num_quantizers": 3, "shared_codebook": True, "quantize_dropout": True},
    ),
    "grouped": ("GroupedResidualVQ", {"num_quantizers": 3, "groups": 2, "decay": 0.9}),
}


class Model(nn.Module):
    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = nn.Linear(D, D)
        self.quantizer = getattr(library, kind)(**{"dim": D, "codebook_size": K, **options})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        quantized, _, loss = self.quantizer(self.encoder(x))
        return quantized, loss.sum()


def model(name: str) -> Model:
    torch.manual_seed(0)
    return Model(*KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_a_converted_model_does_the_same_and_comes_back(name: str) -> None:
    made = model(name)
    made.train()(torch.randn(2, 50, D))
    made.eval()
    x = torch.randn(2, 50, D)
    before, state = made(x)[0], copy.deepcopy(made.state_dict())
    kind = type(made.quantizer)
    (entry,) = vq.convert(made)
    assert entry.path == "quantizer"
    assert type(made.quantizer) is getattr(vector_quantize_pytorch, KINDS[name][0])
    agreement.assert_in_one_band(made(x)[0], before)
    for key, value in made.state_dict().items():
        assert torch.equal(value, state[key]), key
    out, loss = made.train()(x)
    (out.square().mean() + loss).backward()
    made.eval()
    trained = made(x)[0]
    vq.revert(made)
    assert type(made.quantizer) is kind
    agreement.assert_in_one_band(made(x)[0], trained)


def test_a_codebook_that_waits_for_kmeans_still_does() -> None:
    made = model("k-means")
    vq.convert(made)
    assert not made.quantizer.codebook.any()
    made(torch.randn(2, 50, D))
    assert made.quantizer.codebook.any(dim=1).all()
    vq.revert(made)
    before = made.quantizer.codebook.clone()
    made.eval()(torch.randn(2, 50, D))
    assert torch.equal(made.quantizer.codebook, before)


@pytest.mark.parametrize("name", KINDS)
def test_all_arguments_are_read_back(name: str) -> None:
    """Ours from theirs is ours from the arguments: the two write the same options."""
    kind, options = KINDS[name]
    arguments = {"dim": D, "codebook_size": K, **options}
    mine = getattr(vector_quantize_pytorch, kind)
    direct = mine(**arguments)
    read = mine(**mine.arguments_of(getattr(library, kind)(**arguments)))
    for one, other in zip(direct.modules(), read.modules(), strict=True):
        for attribute, value in vars(one).items():
            if not attribute.startswith("_") and attribute not in ("training", "sync"):
                assert getattr(other, attribute) == value, attribute


def test_an_optimizer_goes_on_and_hooks_stay() -> None:
    made = model("learnable")
    parameter = made.quantizer._codebook.embed
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    calls: list[int] = []
    made.quantizer.register_forward_hook(lambda *_: calls.append(1))
    vq.convert(made)
    assert made.quantizer._codebook.embed is parameter
    before = parameter.detach().clone()
    out, loss = made(torch.randn(2, 50, D))
    (out.sum() + loss).backward()
    optimizer.step()
    assert not torch.equal(parameter, before)
    assert calls == [1]


def test_hooks_of_levels_stay() -> None:
    made = model("residual")
    calls: list[int] = []
    made.quantizer.layers[2].register_forward_hook(lambda *_: calls.append(2))
    vq.convert(made)
    for training in (True, False):
        made.train(training)(torch.randn(2, 50, D))
    assert calls == [2, 2]


def test_a_shared_codebook_stays_one_object() -> None:
    made = model("residual, shared")
    vq.convert(made)
    assert len({id(layer._codebook) for layer in made.quantizer.layers}) == 1
    vq.revert(made)
    assert len({id(layer._codebook) for layer in made.quantizer.layers}) == 1


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("VectorQuantize", {"affine_param": True}, "affine_param=True"),
        ("VectorQuantize", {"stochastic_sample_codes": True}, "stochastic_sample_codes=True"),
        ("VectorQuantize", {"codebook_diversity_loss_weight": 0.1}, "diversity_loss_weight=0.1"),
        ("ResidualVQ", {"num_quantizers": 2, "beam_size": 3}, "beam_size=3"),
        (
            "ResidualVQ",
            {"num_quantizers": 2, "implicit_neural_codebook": True},
            "implicit_neural_codebook=True",
        ),
    ],
)
def test_what_is_not_served_is_left_and_named(
    kind: str, options: dict[str, Any], named: str
) -> None:
    made = Model(kind, options)
    before = made.quantizer
    (entry,) = vq.convert(made)
    assert made.quantizer is before
    assert entry.reason is not None
    assert named in entry.reason


@pytest.mark.parametrize("name", KINDS)
def test_copies_and_pickles_work(name: str) -> None:
    made = model(name)
    vq.convert(made)
    x = torch.randn(2, 50, D)
    made.train()(x)
    made.eval()
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        agreement.assert_in_one_band(twin(x)[0], made(x)[0])


def test_bad_checkpoints_have_codes() -> None:
    made = vector_quantize_pytorch.VectorQuantize(dim=D, codebook_size=K)
    state = made.state_dict()
    embed = state["_codebook.embed"]
    wrong = {
        "missing_keys": {k: v for k, v in state.items() if k != "_codebook.embed"},
        "wrong_num_embeddings": {**state, "_codebook.embed": embed[:, :-1]},
        "wrong_embedding_dim": {**state, "_codebook.embed": embed[..., :-1]},
        "transposed_codebook": {**state, "_codebook.embed": embed.mT},
        "module_prefix": {f"module.{k}": v for k, v in state.items()},
    }
    before = made.codebook.clone()
    for code, checkpoint in wrong.items():
        with pytest.raises(CheckpointError) as caught:
            made.load_state_dict(checkpoint)
        assert caught.value.code == code
        assert torch.equal(made.codebook, before)


def test_state_that_only_ours_has_comes_to_the_device_of_theirs() -> None:
    options: dict[str, Any] = {"dim": 4, "codebook_size": 8, "use_cosine_sim": True}
    options["stochastic_sample_codes"] = True
    ours = vector_quantize_pytorch.VectorQuantize(**options)
    carry(library.VectorQuantize(**options).to("meta"), ours)
    assert {tensor.device.type for tensor in ours.buffers()} == {"meta"}


# The class, its options, and what a user sets during training, by the child it is set on.
TUNED: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "VectorQuantize": (
        {"dim": D, "codebook_size": K},
        {
            "": {"commitment_weight": 0.3, "freeze_codebook": True, "rotation_trick": False},
            "_codebook": {"decay": 0.99, "sample_codebook_temp": 0.1},
        },
    ),
    "ResidualVQ": (
        {"dim": D, "codebook_size": K, "num_quantizers": 3},
        {"": {"quantize_dropout": True}, "layers.1": {"freeze_codebook": True}},
    ),
    "FSQ": ({"levels": [5, 5], "preserve_symmetry": True}, {"": {"noise_dropout": 0.5}}),
    "ResidualFSQ": (
        {"levels": [5, 5], "num_quantizers": 2},
        {"": {"quantize_dropout": True}, "layers.0": {"noise_dropout": 0.5}},
    ),
    "LFQ": (
        {"codebook_size": K},
        {"": {"entropy_loss_weight": 0.5, "diversity_gamma": 3.0, "commitment_loss_weight": 1.0}},
    ),
    "ResidualLFQ": (
        {"dim": D, "codebook_size": K, "num_quantizers": 2},
        {"": {"quantize_dropout": True}, "layers.1": {"entropy_loss_weight": 0.5}},
    ),
    "SimVQ": ({"dim": D, "codebook_size": K}, {"": {"commitment_weight": 2.0}}),
    "ResidualSimVQ": (
        {"dim": D, "codebook_size": K, "num_quantizers": 2},
        {"": {"quantize_dropout": True}, "layers.1": {"commitment_weight": 2.0}},
    ),
}


@pytest.mark.parametrize("way", ["before convert", "before revert"])
@pytest.mark.parametrize("name", TUNED)
def test_what_a_user_has_set_stays(name: str, way: str) -> None:
    options, tuned = TUNED[name]
    model = nn.ModuleDict({"quantize": getattr(library, name)(**options)})
    for turn in (vq.convert, vq.revert):
        if (way == "before convert") == (turn is vq.convert):
            for child, values in tuned.items():
                for attribute, value in values.items():
                    setattr(model["quantize"].get_submodule(child), attribute, value)
        turn(model)
    for child, values in tuned.items():
        for attribute, value in values.items():
            assert getattr(model["quantize"].get_submodule(child), attribute) == value, attribute
