"""VectorQuantize against vector-quantize-pytorch 1.32, option by option."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as library
from compat import agreement
from compat.vqp_pairs import assert_same_state, assert_same_step, pair

from vqkernels.compat.vector_quantize_pytorch import VectorQuantize

D, K = 16, 32
SEQUENCE = (3, 37, D)
IMAGE, VOLUME = (2, D, 5, 6), (2, D, 3, 4, 2)
BY_GRADIENT = {"learnable_codebook": True, "ema_update": False}

# What is constructed, and the shape of x.
OPTIONS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "defaults": ({}, SEQUENCE),
    "straight through": ({"rotation_trick": False}, SEQUENCE),
    "gumbel straight through": ({"rotation_trick": False, "straight_through": True}, SEQUENCE),
    "cosine": ({"use_cosine_sim": True}, SEQUENCE),
    "decay, eps": ({"decay": 0.99, "eps": 0.1}, SEQUENCE),
    "projection": ({"codebook_dim": 8}, SEQUENCE),
    "layernorm": ({"codebook_dim": 8, "layernorm_after_project_in": True}, SEQUENCE),
    "heads": ({"codebook_dim": 4, "heads": 4}, SEQUENCE),
    "heads, projection": ({"heads": 2}, SEQUENCE),
    "separate heads": (
        {"codebook_dim": 4, "heads": 4, "separate_codebook_per_head": True},
        SEQUENCE,
    ),
    "separate heads, cosine": (
        {"heads": 2, "separate_codebook_per_head": True, "use_cosine_sim": True},
        SEQUENCE,
    ),
    "separate codebook of one head": ({"separate_codebook_per_head": True}, SEQUENCE),
    "frozen": ({"freeze_codebook": True}, SEQUENCE),
    "learnable": (BY_GRADIENT, SEQUENCE),
    "learnable, no commitment": ({**BY_GRADIENT, "commitment_weight": 0.0}, SEQUENCE),
    "learnable, frozen": ({**BY_GRADIENT, "freeze_codebook": True}, SEQUENCE),
    "learnable heads": (
        {**BY_GRADIENT, "heads": 2, "separate_codebook_per_head": True},
        SEQUENCE,
    ),
    "synchronous update": ({**BY_GRADIENT, "sync_update_v": 0.3}, SEQUENCE),
    "no gradient to the input": ({"route_gradients_to_input": False}, SEQUENCE),
    "no gradient to the input, learnable": (
        {**BY_GRADIENT, "route_gradients_to_input": False, "sync_update_v": 0.3},
        SEQUENCE,
    ),
    "commitment weight": ({"commitment_weight": 0.25}, SEQUENCE),
    "no commitment": ({"commitment_weight": 0.0}, SEQUENCE),
    "orthogonal": ({"orthogonal_reg_weight": 3.0}, SEQUENCE),
    "orthogonal, active codes": (
        {"orthogonal_reg_weight": 3.0, "orthogonal_reg_active_codes_only": True},
        (2, 5, D),
    ),
    "orthogonal, learnable heads": (
        {
            **BY_GRADIENT,
            "orthogonal_reg_weight": 3.0,
            "heads": 2,
            "separate_codebook_per_head": True,
        },
        SEQUENCE,
    ),
    "no average, no gradient": ({"ema_update": False}, SEQUENCE),
    "manual average": ({"manual_ema_update": True}, SEQUENCE),
    "counts for revival, learnable": ({**BY_GRADIENT, "threshold_ema_dead_code": 1e-3}, SEQUENCE),
    "channels first": ({"channel_last": False}, (3, D, 37)),
    "image": ({"accept_image_fmap": True}, IMAGE),
    "image, heads": ({"accept_image_fmap": True, "codebook_dim": 4, "heads": 2}, IMAGE),
    "volume": ({"accept_3d_fmap": True}, VOLUME),
    "one token": ({}, (7, D)),
    "one token, heads": ({"codebook_dim": 4, "heads": 4}, (7, D)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_step_is_theirs(name: str) -> None:
    options, shape = OPTIONS[name]
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K, **options)
    assert_same_step(ours, theirs, torch.randn(shape), lambda m, x: m(x))


MASK = torch.rand(3, 37, generator=torch.Generator().manual_seed(1)) > 0.3
# What is constructed, what is passed, and the shape of x.
CALLS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = {
    "mask": ({}, {"mask": MASK}, SEQUENCE),
    "mask, x passes": ({"return_zeros_for_masked_padding": False}, {"mask": MASK}, SEQUENCE),
    "lens": ({}, {"lens": torch.tensor([3, 37, 12])}, SEQUENCE),
    "breakdown": (
        {"commitment_weight": 0.3, "orthogonal_reg_weight": 2.0},
        {"return_loss_breakdown": True},
        SEQUENCE,
    ),
    "frozen": ({}, {"freeze_codebook": True}, SEQUENCE),
    "thawed": ({"freeze_codebook": True}, {"freeze_codebook": False}, SEQUENCE),
    "no average this time": ({}, {"ema_update": False}, SEQUENCE),
    "topk": ({}, {"topk": 3}, SEQUENCE),
    "topk, all codes": ({}, {"topk": 100}, SEQUENCE),
    "topk without commitment": ({"commitment_weight": 0.0}, {"topk": 3}, SEQUENCE),
    "topk, cosine, projection": (
        {"use_cosine_sim": True, "codebook_dim": 8},
        {"topk": 3, "return_loss_breakdown": True},
        SEQUENCE,
    ),
    "topk, learnable, mask": (BY_GRADIENT, {"topk": 3, "mask": MASK}, SEQUENCE),
    "topk, no gradient to the input": (
        {**BY_GRADIENT, "route_gradients_to_input": False},
        {"topk": 3},
        SEQUENCE,
    ),
    "topk, image": ({"accept_image_fmap": True}, {"topk": 3}, IMAGE),
    "topk, volume, breakdown": (
        {"accept_3d_fmap": True},
        {"topk": 3, "return_loss_breakdown": True},
        VOLUME,
    ),
    "topk, one token, breakdown": ({}, {"topk": 3, "return_loss_breakdown": True}, (7, D)),
    "topk, channels first": ({"channel_last": False}, {"topk": 3}, (3, D, 37)),
    "topk, one token": ({"channel_last": False}, {"topk": 3}, (7, D)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_theirs(name: str) -> None:
    options, arguments, shape = CALLS[name]
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K, **options)
    assert_same_step(ours, theirs, torch.randn(shape), lambda m, x: m(x, **arguments))


@pytest.mark.parametrize("options", [{}, BY_GRADIENT], ids=["average", "gradient"])
def test_gradients_in_evaluation_are_theirs(options: dict[str, Any]) -> None:
    """None for the nearest code; for several of them those of how far they are."""
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K, **options)
    ours.eval()
    theirs.eval()
    x = torch.randn(SEQUENCE, requires_grad=True)
    for arguments in ({}, {"topk": 3}):
        one, other = ours(x, **arguments), theirs(x, **arguments)
        assert one[0].requires_grad == other[0].requires_grad
        assert one[2].requires_grad == other[2].requires_grad
    (grad,) = torch.autograd.grad(one[2].sum(), x)
    (expected,) = torch.autograd.grad(other[2].sum(), x)
    agreement.assert_in_one_band(grad, expected)


@pytest.mark.parametrize("options", [{}, {"commitment_weight": 0.0}], ids=["mse", "nothing"])
def test_the_loss_has_a_backward_where_nothing_needs_a_gradient(options: dict[str, Any]) -> None:
    for module in pair("VectorQuantize", dim=D, codebook_size=K, **options):
        module(torch.randn(SEQUENCE))[2].backward()
        with torch.no_grad():
            module(torch.randn(SEQUENCE))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_return_theirs(dtype: torch.dtype) -> None:
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K)
    x = agreement.with_margin(theirs.codebook, 100)[None].to(dtype)
    one, other = ours(x), theirs(x)
    assert [t.dtype for t in one] == [t.dtype for t in other]
    assert torch.equal(one[1], other[1])
    agreement.assert_in_one_band(one[0], other[0])


@pytest.mark.parametrize(
    "options",
    [{}, {"use_cosine_sim": True}, BY_GRADIENT, {"orthogonal_reg_weight": 0.1}],
    ids=["average", "cosine", "gradient", "both"],
)
def test_fifty_steps_keep_in_step(options: dict[str, Any]) -> None:
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K, **options)
    batches = [agreement.with_margin(theirs.codebook, 256, seed)[None] for seed in range(50)]
    agreement.assert_steps_agree(ours, theirs, batches)


def test_indices_are_exact_where_theirs_are_not() -> None:
    """Far from the origin theirs, |x|^2 - 2 x.c + |c|^2 in float32, misses the nearest code."""
    ours, theirs = pair("VectorQuantize", dim=8, codebook_size=256)
    codes = torch.randn(256, 8) + 100.0
    ours.codebook = theirs.codebook = codes
    x = torch.randn(1, 4000, 8) + 100.0
    with torch.no_grad():
        one, other = ours.eval()(x)[1], theirs.eval()(x)[1]
    missed = agreement.assert_same_codes(one, other, x[0], codes)
    assert 0 < len(missed) < 400
    agree = torch.ones(4000, dtype=torch.bool)
    agree[missed] = False
    assert torch.equal(one[0][agree], other[0][agree])


def test_quantized_is_the_code_itself() -> None:
    ours, _ = pair("VectorQuantize", dim=D, codebook_size=K)
    codes = ours.codebook.clone()
    quantized, indices, _ = ours(torch.randn(SEQUENCE, requires_grad=True))
    assert torch.equal(quantized, codes[indices])


@pytest.mark.parametrize("name", ["defaults", "separate heads", "image", "channels first"])
def test_codes_of_indices_are_theirs(name: str) -> None:
    options, shape = OPTIONS[name]
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K, **options)
    indices = ours.eval()(torch.randn(shape))[1]
    for method in ("get_codes_from_indices", "get_output_from_indices"):
        one, other = getattr(ours, method)(indices), getattr(theirs, method)(indices)
        agreement.assert_in_one_band(one, other)


@pytest.mark.parametrize("name", OPTIONS)
def test_decoding_gives_what_forward_returned(name: str) -> None:
    """In theirs not for a shared codebook of several heads, nor for projected images."""
    options, shape = OPTIONS[name]
    ours = VectorQuantize(dim=D, codebook_size=K, **options).eval()
    quantized, indices, _ = ours(torch.randn(shape))
    agreement.assert_in_one_band(ours.get_output_from_indices(indices), quantized)


def test_updating_with_given_indices_is_theirs() -> None:
    for options in ({}, {"heads": 2, "separate_codebook_per_head": True}, {"heads": 2}):
        ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K, **options)
        x = torch.randn(SEQUENCE)
        heads = (2,) if "heads" in options else ()
        indices = torch.randint(K, (*SEQUENCE[:2], *heads))
        before = ours.codebook.clone()
        ours.update_indices(x, indices)
        theirs.update_indices(x, indices)
        assert not torch.equal(before, ours.codebook)
        assert_same_state(ours, theirs)


def test_manual_average_moves_when_told() -> None:
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K, manual_ema_update=True)
    before = ours.codebook.clone()
    for seed in range(3):
        x = agreement.with_margin(before, 100, seed)[None]
        ours(x)
        theirs(x)
    assert torch.equal(ours.codebook, before)
    for module in (ours, theirs):
        module._codebook.update_ema()
    assert not torch.equal(ours.codebook, before)
    assert_same_state(ours, theirs)


def test_attributes_that_are_read_downstream_are_theirs() -> None:
    options = {"codebook_dim": 4, "heads": 4, "threshold_ema_dead_code": 2, "decay": 0.9}
    ours, theirs = pair("VectorQuantize", dim=D, codebook_size=K, **options)
    for name in (
        *("dim", "heads", "codebook_size", "has_projections", "ema_update", "eps"),
        *("commitment_weight", "learnable_codebook", "freeze_codebook", "rotation_trick"),
        *("channel_last", "accept_image_fmap", "use_cosine_sim", "separate_codebook_per_head"),
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("decay", "eps", "codebook_size", "num_codebooks", "threshold_ema_dead_code"):
        assert getattr(ours._codebook, name) == getattr(theirs._codebook, name), name
    assert ours.codebook.shape == theirs.codebook.shape


def test_a_seed_gives_their_first_codebook() -> None:
    for options in ({}, {"use_cosine_sim": True}, {"codebook_dim": 8}, {"kmeans_init": True}):
        states = []
        for kind in (VectorQuantize, library.VectorQuantize):
            torch.manual_seed(3)
            states.append(kind(dim=D, codebook_size=K, **options).state_dict())
        for name, expected in states[1].items():
            assert torch.equal(states[0][name], expected), name


def test_a_parameter_stays_the_same_through_steps_and_loads() -> None:
    ours, _ = pair("VectorQuantize", dim=D, codebook_size=K, **BY_GRADIENT)
    parameter = ours._codebook.embed
    assert isinstance(parameter, torch.nn.Parameter)
    assert parameter.shape == (1, K, D)
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.1)
    before = parameter.detach().clone()
    ours(torch.randn(SEQUENCE))[2].backward()
    optimizer.step()
    ours.load_state_dict(copy.deepcopy(ours.state_dict()))
    assert ours._codebook.embed is parameter
    assert not torch.equal(before, parameter)


def test_precision_of_the_codebook_is_kept() -> None:
    ours, _ = pair("VectorQuantize", dim=D, codebook_size=K, codebook_dim=8)
    ours.to(torch.bfloat16)
    assert ours.project_in.weight.dtype == torch.bfloat16
    assert ours._codebook.embed.dtype == ours._codebook.embed_avg.dtype == torch.float32
    assert ours(torch.randn(SEQUENCE).bfloat16())[0].dtype == torch.bfloat16


def test_autocast_changes_no_index() -> None:
    """Theirs leaves the CPU's autocast on: more than a hundredth of its indices change."""
    ours, theirs = pair("VectorQuantize", dim=64, codebook_size=1024)
    x = torch.randn(1, 2000, 64)
    ours.eval()
    expected = ours(x)[1]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x)[1], expected)
        assert not torch.equal(theirs.eval()(x)[1], expected)
