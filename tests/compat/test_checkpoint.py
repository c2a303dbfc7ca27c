"""Checkpoints that do not fit: each has a code, says what to do, and loads nothing."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vqkernels.compat import CheckpointError, check_checkpoint
from vqkernels.compat.diffusers import VectorQuantizer

K, D = 32, 4
KEY = "quantize.embedding.weight"
State = dict[str, Tensor]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, D)
        self.quantize = VectorQuantizer(K, D, beta=0.25)


def _without(state: State) -> State:
    return {key: value for key, value in state.items() if key != KEY}


def _wrapped(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def _with(change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, KEY: change(state[KEY])}


# What is wrong, how it comes about, and what the message ends with.
CASES: dict[str, tuple[Callable[[State], State], str]] = {
    "missing_keys": (_without, f"state_dict must have the keys {KEY}, got none of them"),
    "module_prefix": (
        _wrapped,
        f"state_dict must have the key {KEY}, got module.{KEY}: a DataParallel or DDP wrapper "
        "wrote it; take 'module.' out of the keys, or load into it",
    ),
    "wrong_num_embeddings": (
        _with(lambda weight: weight[:-2]),
        f"{KEY} must have shape (32, 4), got (30, 4): 30 codes, where the module has 32",
    ),
    "wrong_embedding_dim": (
        _with(lambda weight: weight[:, :3]),
        f"{KEY} must have shape (32, 4), got (32, 3): codes of 3 channels, where the module has 4",
    ),
    "transposed_codebook": (
        _with(lambda weight: weight.T),
        f"{KEY} must have shape (32, 4), got (4, 32): a transposed codebook; load its .mT",
    ),
    "wrong_shape": (
        _with(lambda weight: weight[None]),
        f"{KEY} must have shape (32, 4), got (1, 32, 4)",
    ),
}


@pytest.mark.parametrize("code", CASES)
def test_a_misfit_is_named_before_anything_is_loaded(code: str) -> None:
    spoil, message = CASES[code]
    model = Model()
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=re.escape(f"{message} [{code}]")) as caught:
        check_checkpoint(model, spoil(state))
    assert caught.value.code == code
    assert caught.value.key == KEY
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("code", [code for code in CASES if CASES[code][1].startswith(KEY)])
def test_load_state_dict_raises_the_same_and_keeps_the_quantizer(code: str) -> None:
    spoil, _ = CASES[code]
    model = Model()
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    before = model.quantize.embedding.weight.detach().clone()
    for strict in (True, False):
        with pytest.raises(CheckpointError) as caught:
            model.load_state_dict(spoil(state), strict=strict)
        assert caught.value.code == code
        assert torch.equal(model.quantize.embedding.weight, before)


@pytest.mark.parametrize("place", ["module.embedding.weight", "quantize.module.embedding.weight"])
def test_the_prefix_of_a_wrapper_is_seen_wherever_it_wrapped(place: str) -> None:
    model = nn.ModuleDict({"quantize": VectorQuantizer(K, D, beta=0.25)})
    target = model["quantize"] if place.startswith("module.") else model
    with pytest.raises(CheckpointError) as caught:
        check_checkpoint(target, {place: torch.zeros(K, D)})
    assert caught.value.code == "module_prefix"


def test_loading_the_quantizer_alone_names_what_is_missing() -> None:
    quantizer = VectorQuantizer(K, D, beta=0.25)
    for state, code in (({}, "missing_keys"), ({"module.embedding.weight": 0}, "module_prefix")):
        with pytest.raises(CheckpointError) as caught:
            quantizer.load_state_dict(state)
        assert caught.value.code == code
    assert quantizer.load_state_dict({}, strict=False).missing_keys == ["embedding.weight"]


def test_keys_missing_in_a_whole_model_are_named_by_torch() -> None:
    with pytest.raises(RuntimeError, match=r"Missing key.*quantize\.embedding\.weight"):
        Model().load_state_dict({"encoder.weight": torch.zeros(D, 3)})
    assert KEY in Model().load_state_dict({}, strict=False).missing_keys


def test_what_fits_is_no_error() -> None:
    state = Model().state_dict()
    model = Model()
    check_checkpoint(model, state)
    model.load_state_dict(state)
    assert torch.equal(model.quantize.embedding.weight, state[KEY])


def test_an_error_survives_pickling() -> None:
    error = CheckpointError("missing_keys", KEY, "message")
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.code, copied.key) == (str(error), error.code, error.key)
