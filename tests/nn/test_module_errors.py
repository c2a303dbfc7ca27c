"""Bad arguments to the module: the documented error, and no half-changed state."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from backends import available
from modules import UPDATES, assert_same_state, batches, quantizer, snapshot, train
from torch import nn

import vqkernels as vq

CONSTRUCTORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"k": 0}, ValueError, "num_embeddings must be at least 1, got 0"),
    ({"k": 8.0}, TypeError, "num_embeddings must be an integer, got 8.0"),
    ({"k": True}, TypeError, "num_embeddings must be an integer, got True"),
    ({"d": -1}, ValueError, "embedding_dim must be at least 1, got -1"),
    ({"commitment_weight": -0.1}, ValueError, "commitment_weight must be at least 0, got -0.1"),
    ({"commitment_weight": None}, TypeError, "commitment_weight must be a number, got None"),
    ({"update": "ema"}, TypeError, "update must be EMA(...), Gradient(...) or None, got 'ema'"),
    ({"update": vq.EMA}, TypeError, "update must be EMA(...), Gradient(...) or None, got"),
    ({"revive": True}, TypeError, "revive must be Revive(...) or None, got True"),
    (
        {"update": None, "revive": vq.Revive()},
        ValueError,
        "revive must be None with update=None, which never moves a code, got Revive(threshold=1.0",
    ),
    ({"frozen": [True] * 16}, TypeError, "frozen must be a torch.Tensor, got list"),
    ({"frozen": torch.ones(16)}, TypeError, "frozen must be torch.bool, got torch.float32"),
    ({"frozen": torch.ones(3) > 0}, ValueError, "frozen must have shape (16,), got (3,)"),
    (
        {"frozen": torch.ones(16) > 0, "update": None},
        ValueError,
        "frozen must be None with update=None, which freezes every code, got a tensor",
    ),
    ({"estimator": "gumbel"}, ValueError, "estimator must be one of 'straight_through', 'rotatio"),
    ({"metric": "dot"}, ValueError, "metric must be one of 'l2', 'cosine', got 'dot'"),
    ({"init": "zeros"}, ValueError, "init must be one of 'kmeans', 'uniform', 'normal', got"),
    ({"init": 3}, TypeError, "init must be a string or a (K, D) tensor, got int"),
    ({"init": torch.zeros(3, 6)}, ValueError, "init must have shape (16, 6), got (3, 6)"),
    ({"init": torch.zeros(16, 6).int()}, TypeError, "init must be float32, float16, bfloat16 or"),
    ({"channel_dim": "1"}, TypeError, "channel_dim must be an integer, got '1'"),
    ({"assign": "topk"}, TypeError, "assign must be Sample(...), TopK(...) or None, got 'topk'"),
    ({"assign": vq.TopK(17)}, ValueError, "TopK.k must be at most num_embeddings=16, got 17"),
    (
        {"regularize": vq.Entropy(1.0)},
        TypeError,
        "regularize must be a tuple of Entropy(...) and Orthogonal(...), got Entropy(weight=1.0",
    ),
    (
        {"regularize": (vq.Orthogonal(1.0),)},
        ValueError,
        "regularize=Orthogonal(weight=1.0, active_only=False) must have a codebook that gradients "
        "reach, update=Gradient(...), got update=EMA(",
    ),
    (
        {"regularize": (vq.Orthogonal(1.0),), "update": None},
        ValueError,
        "regularize=Orthogonal(weight=1.0, active_only=False) must have a codebook that gradients "
        "reach, update=Gradient(...), got update=None",
    ),
    ({"backend": "fast"}, ValueError, "backend must be one of 'native', 'triton', 'reference'"),
]


@pytest.mark.parametrize(("options", "kind", "message"), CONSTRUCTORS)
def test_the_constructor_refuses(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}") as caught:
        quantizer(**options)
    assert type(caught.value) is kind


def _call(*arguments: Any) -> Callable[[vq.nn.VectorQuantizer], Any]:
    return lambda module: module(*arguments)


X = batches(1)[0]
FORWARDS: dict[str, tuple[Callable[[vq.nn.VectorQuantizer], Any], type[Exception], str]] = {
    "kind": (_call(None), TypeError, "x must be a torch.Tensor, got NoneType"),
    "dtype": (_call(X.long()), TypeError, "x must be float32, float16, bfloat16 or float64"),
    "rank": (_call(X[0]), ValueError, "x must have at least 2 dimensions, got shape (6,)"),
    "width": (_call(X[:, :5]), ValueError, "x must have size 6 in dimension 1 (channel_dim=1)"),
    "device": (_call(X.to("meta")), ValueError, "x must be on the device of codebook (cpu), got"),
    "mask dtype": (_call(X, X[:, 0]), TypeError, "mask must be torch.bool, got torch.float32"),
    "mask shape": (_call(X, X[:3, 0] > 0), ValueError, "mask must have shape (64,), got (3,)"),
    "init mask": (
        lambda module: module.init_codebook(X, X > 0),
        ValueError,
        "mask must have shape (64,), got (64, 6)",
    ),
}


@pytest.mark.parametrize("stage", ["fresh", "pending"])
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("name", FORWARDS)
def test_a_refused_training_forward_leaves_the_state_as_it_was(
    name: str, update: vq.EMA | vq.Gradient | None, stage: str
) -> None:
    call, kind, message = FORWARDS[name]
    module = quantizer(update=update)
    if stage == "pending":
        train(module, batches(2))
    before = snapshot(module)
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        call(module)
    assert_same_state(module, before)


@pytest.mark.skipif("native" not in available(), reason="native is not built")
def test_a_backend_that_cannot_take_the_dtype_is_refused_before_the_codebook_moves() -> None:
    module = quantizer(backend="native")
    train(module, batches(2))
    before = snapshot(module)
    with pytest.raises(TypeError, match="float64"):
        module(X.double())
    assert_same_state(module, before)


def test_decode_refuses_what_lookup_refuses() -> None:
    with pytest.raises(ValueError, match=r"indices must be in \[-1, 15\], got 16"):
        quantizer().decode(torch.tensor([16]))


def test_the_hint_for_channels_last_models() -> None:
    with pytest.raises(ValueError, match=r"did you mean channel_dim=-1\?$"):
        quantizer()(torch.zeros(2, 5, 6))


@pytest.mark.parametrize("shape", [(4, 7, 6), (5, 6), (2, 3, 4, 6)])
def test_channel_dim_minus_1_takes_any_rank(shape: tuple[int, ...]) -> None:
    out = quantizer(channel_dim=-1)(torch.randn(shape))
    assert out.quantized.shape == shape
    assert out.indices.shape == shape[:-1]


def test_sizes_and_weights_may_be_numpy_numbers() -> None:
    module = vq.nn.VectorQuantizer(
        np.int64(5),
        np.int32(6),
        update=vq.EMA(decay=np.float32(0.5)),
        commitment_weight=np.float64(1),
    )
    assert module(torch.randn(3, 6)).indices.shape == (3,)


NUMPY: dict[str, Callable[[], nn.Module]] = {
    "EMA and Revive": lambda: vq.nn.VectorQuantizer(
        np.int64(5),
        6,
        update=vq.EMA(np.float64(0.5), np.float32(1e-5), every=np.int64(2)),
        revive=vq.Revive(np.float64(1), np.float64(3), np.int64(2), np.int64(5), np.int64(7)),
    ),
    "losses": lambda: vq.nn.VectorQuantizer(
        5,
        6,
        update=vq.Gradient(np.float64(1)),
        regularize=(vq.Entropy(*map(np.float64, (0.1, 0.2, 0.3))), vq.Orthogonal(np.float64(1))),
    ),
    "Sample": lambda: quantizer(assign=vq.Sample(np.float64(0.5), seed=np.int64(3))),
    "TopK": lambda: quantizer(assign=vq.TopK(np.int64(2))),
    "LevelDropout": lambda: vq.nn.ResidualVQ(
        quantizer, 4, dropout=vq.LevelDropout(np.float64(0.5), np.int64(1), np.int64(2))
    ),
    "LFQ": lambda: vq.nn.LFQ(6, entropy_group=np.int64(2)),
    "RandomProjectionVQ": lambda: vq.nn.RandomProjectionVQ(5, 6, np.int64(3), seed=np.int64(1)),
}


@pytest.mark.parametrize("make", NUMPY.values(), ids=NUMPY.keys())
def test_a_step_with_numpy_numbers_in_its_options_compiles(make: Callable[[], nn.Module]) -> None:
    torch._dynamo.reset()
    module = make()
    step = torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True)
    for x in batches(2, n=8):
        for found, expected in zip(step(x)[:3], module(x)[:3], strict=True):
            assert torch.equal(found, expected)


def test_seeds_may_have_64_bits() -> None:
    seed = 2**64 - 1
    for make in (
        lambda: quantizer(revive=vq.Revive(seed=seed)),
        lambda: quantizer(assign=vq.Sample(seed=seed)),
        lambda: vq.nn.ResidualVQ(quantizer, 2, dropout=vq.LevelDropout(seed=seed)),
        lambda: vq.nn.GumbelVQ(5, 6, seed=seed),
        lambda: vq.nn.RandomProjectionVQ(5, 6, 3, seed=seed),
    ):
        module = make()
        assert module(torch.randn(8, 6)).indices.shape[0] == 8


def test_a_sparse_input_is_refused() -> None:
    with pytest.raises(TypeError, match=r"x must be a dense \(strided\) tensor, got torch.sparse"):
        vq.nearest_code(torch.eye(6).to_sparse(), torch.randn(5, 6))


def test_a_codebook_of_another_size_is_refused_before_any_state_moves() -> None:
    module = vq.nn.VectorQuantizer(11, 6, init="normal")
    x = torch.randn(24, 6)
    module(x)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.codebook = torch.cat([module.codebook, module.codebook])
    with pytest.raises(ValueError, match=r"codebook must have shape \(11, 6\), got \(22, 6\)"):
        module(x)
    for name, value in module.state_dict().items():
        assert name == "codebook" or torch.equal(value, before[name])
