"""PeerCodebook: our state machine under another library's names."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import vqkernels as vq
from vqkernels.compat._codebook import PeerCodebook

K, D = 16, 4


class Headed(PeerCodebook):
    """Names, a leading axis and a bool, as in a known library."""

    their_names = {  # noqa: RUF012
        "codebook": "embed",
        "embed_sum": "embed_avg",
        "cluster_size": "size",
        "initialised": "initted",
    }

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.bool() if name == "initialised" else tensor[None]

    def _to_ours(self, name: str, tensor: Tensor) -> Tensor:
        return tensor if name == "initialised" else tensor[0]


def make(seed: int = 0, **options: Any) -> Headed:
    torch.manual_seed(seed)
    return Headed(K, D, update=vq.EMA(decay=0.8), **{"init": "normal", **options})


def test_the_state_has_their_names_shapes_and_dtypes() -> None:
    state = make().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "embed": (1, K, D),
        "embed_avg": (1, K, D),
        "size": (1, K),
        "initted": (),
    }
    assert state["initted"].dtype == torch.bool


def test_their_attributes_show_the_present_values() -> None:
    module = make()
    module.embed.zero_()
    assert not module.codebook.any()
    assert module.size.shape == (1, K)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = module.nonsense


def test_the_codebook_has_moved_when_a_training_forward_returns() -> None:
    module = make()
    reference = vq.nn.VectorQuantizer(K, D, update=vq.EMA(decay=0.8), init=module.codebook)
    x = torch.randn(100, D)
    out, expected = module(x), reference(x)
    assert torch.equal(out.quantized, expected.quantized)
    assert not torch.equal(module.codebook, reference.codebook)
    reference.flush()
    assert torch.equal(module.codebook, reference.codebook)
    assert int(module.pending_steps) == 0


def test_evaluation_moves_nothing() -> None:
    module = make().eval()
    before = module.codebook.clone()
    module(torch.randn(100, D))
    assert torch.equal(module.codebook, before)


def test_a_load_takes_all_that_they_have_and_resets_the_rest() -> None:
    module, other = make(), make(seed=1, init="kmeans")
    for _ in range(3):
        module(torch.randn(100, D))
    other(torch.randn(100, D))
    other.load_state_dict(module.state_dict())
    for name in ("codebook", "embed_sum", "cluster_size", "initialised"):
        assert torch.equal(getattr(other, name), getattr(module, name))
    assert not other.idle.any()
    assert int(other.revived) == int(other.clock) == 0
    assert other.pending_rows.isinf().all()
    x = torch.randn(100, D)
    assert torch.equal(other(x).quantized, module(x).quantized)


def test_k_steps_and_m_more_equal_a_save_between() -> None:
    module, batches = make(revive=None), [torch.randn(64, D) for _ in range(6)]
    resumed = copy.deepcopy(module)
    for x in batches:
        module(x)
    for x in batches[:3]:
        resumed(x)
    fresh = make(seed=5, revive=None)
    fresh.load_state_dict(resumed.state_dict())
    for x in batches[3:]:
        fresh(x)
    assert torch.equal(fresh.codebook, module.codebook)


def test_missing_and_unexpected_keys_bear_their_names() -> None:
    module = torch.nn.ModuleDict({"book": make()})
    state = module.state_dict()
    del state["book.embed_avg"]
    state["book.more"] = torch.zeros(1)
    with pytest.raises(RuntimeError) as caught:
        module.load_state_dict(state)
    assert 'Missing key(s) in state_dict: "book.embed_avg"' in str(caught.value)
    assert 'Unexpected key(s) in state_dict: "book.more"' in str(caught.value)
    found = module.load_state_dict({"book.embed": torch.ones(1, K, D)}, strict=False)
    assert not found.unexpected_keys
    assert module["book"].codebook.eq(1).all()


def test_half_files_and_casts_leave_it_float32() -> None:
    module = make()
    module.load_state_dict({name: value.half() for name, value in module.state_dict().items()})
    module.half()
    assert module.codebook.dtype == torch.float32
