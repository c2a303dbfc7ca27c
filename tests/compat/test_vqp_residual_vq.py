"""ResidualVQ against vector-quantize-pytorch 1.32, option by option."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from compat import agreement
from compat.vqp_pairs import assert_same_output, assert_same_state, assert_same_step, pair
from torch import Tensor, nn
from vector_quantize_pytorch import vector_quantize_pytorch as library_module

from vqkernels.compat import vector_quantize_pytorch as compat
from vqkernels.compat.vector_quantize_pytorch import ResidualVQ

D, K, Q = 16, 32, 4
SEQUENCE = (3, 37, D)
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "straight through": {"rotation_trick": False},
    "cosine": {"use_cosine_sim": True},
    "projection": {"codebook_dim": 8},
    "shared": {"shared_codebook": True},
    "shared, straight through": {"shared_codebook": True, "rotation_trick": False},
    "sizes": {"codebook_size": (32, 16, 16, 8)},
    "learnable": {"learnable_codebook": True, "ema_update": False},
    "orthogonal": {"orthogonal_reg_weight": 2.0},
    "commitment weight": {"commitment_weight": 0.25},
    "one level": {"num_quantizers": 1, "quantize_dropout": True},
    "beam of one": {"beam_size": 1},
}
MASK = torch.rand(3, 37, generator=torch.Generator().manual_seed(1)) > 0.3
CALLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mask": ({}, {"mask": MASK}),
    "mask, x passes": ({"return_zeros_for_masked_padding": False}, {"mask": MASK}),
    "mask, projection": ({"codebook_dim": 8}, {"mask": MASK}),
    "all codes": ({}, {"return_all_codes": True}),
    "all codes of unequal levels": (
        {"codebook_size": (32, 16, 16, 8)},
        {"return_all_codes": True},
    ),
    "frozen": ({}, {"freeze_codebook": True}),
    **{
        f"dropout, seed {seed}": (
            {"quantize_dropout": True},
            {"rand_quantize_dropout_fixed_seed": seed, "return_all_codes": True},
        )
        for seed in range(4)
    },
    **{
        f"dropout from the third, seed {seed}": (
            {"quantize_dropout": True, "quantize_dropout_cutoff_index": 2},
            {"rand_quantize_dropout_fixed_seed": seed},
        )
        for seed in range(3)
    },
    **{
        f"structured dropout, seed {seed}": (
            {
                "quantize_dropout": True,
                "quantize_dropout_cutoff_index": 1,
                "quantize_dropout_multiple_of": 2,
            },
            {"rand_quantize_dropout_fixed_seed": seed},
        )
        for seed in range(3)
    },
    "dropout, shared": (
        {"quantize_dropout": True, "shared_codebook": True},
        {"rand_quantize_dropout_fixed_seed": 1},
    ),
}


def levels(**options: Any) -> dict[str, Any]:
    return {"dim": D, "codebook_size": K, "num_quantizers": Q, **options}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_step_is_theirs(name: str) -> None:
    """With unequal weights of the levels' losses, which a shared codebook gets added up."""

    def call(module: nn.Module, x: Tensor) -> Any:
        quantized, indices, losses = module(x)
        return quantized, indices, losses * torch.arange(1, len(losses) + 1)

    ours, theirs = pair("ResidualVQ", **levels(**OPTIONS[name]))
    assert_same_step(ours, theirs, torch.randn(SEQUENCE), call)


def test_a_shared_orthogonal_codebook_has_their_loss_and_the_gradient_of_it() -> None:
    """Theirs moves the codes between the loss and its backward, which autograd does not see."""
    ours, theirs = pair("ResidualVQ", **levels(shared_codebook=True, orthogonal_reg_weight=2.0))
    embed = theirs.layers[0]._codebook.embed
    expected = Q * 2.0 * library_module.orthogonal_loss_fn(embed)
    (gradient,) = torch.autograd.grad(expected, embed)
    x = torch.randn(SEQUENCE)
    out = ours(x)
    out[2].sum().backward()
    agreement.assert_in_one_band(ours.layers[0]._codebook.embed.grad, gradient)
    assert_same_output(out, theirs(x))
    assert_same_state(ours, theirs)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_theirs(name: str) -> None:
    options, arguments = CALLS[name]
    ours, theirs = pair("ResidualVQ", **levels(**options))
    assert_same_step(ours, theirs, torch.randn(SEQUENCE), lambda m, x: m(x, **arguments))


def test_one_token_is_theirs() -> None:
    ours, theirs = pair("ResidualVQ", **levels())
    assert_same_step(ours, theirs, torch.randn(7, D), lambda m, x: m(x))


@pytest.mark.parametrize("options", [{}, {"shared_codebook": True}], ids=["own", "shared"])
def test_fifty_steps_keep_in_step(options: dict[str, Any]) -> None:
    """On sums of codes: each level has a margin as long as its codes stay near their first."""
    ours, theirs = pair("ResidualVQ", **levels(num_quantizers=2, **options), decay=0.99)
    books = [100.0 * theirs.layers[0].codebook.clone(), theirs.layers[1].codebook.clone()]
    if options:
        books[0] = books[1] = theirs.layers[0].codebook.clone()
    for layer, book in zip(theirs.layers, books, strict=True):
        layer.codebook = book
        layer._codebook.embed_avg.copy_(book)
    ours.load_state_dict(theirs.state_dict())
    batches = [
        sum(agreement.with_margin(book, 256, 2 * seed + level, 0.01) for level, book in parts)[
            None
        ]
        for seed in range(50)
        for parts in [list(enumerate(books))]
    ]
    agreement.assert_steps_agree(ours, theirs, batches)


def test_dropped_levels_are_those_of_the_seed() -> None:
    ours, _ = pair("ResidualVQ", **levels(quantize_dropout=True))
    x = torch.randn(SEQUENCE)
    kept = set()
    for seed in range(20):
        _, indices, losses = ours(x, rand_quantize_dropout_fixed_seed=seed)
        dropped = (indices == -1).all(dim=0).all(dim=0)
        assert torch.equal(dropped, losses == 0)
        kept.add(int((~dropped).sum()))
    assert kept == {1, 2, 3, 4}
    assert (ours.eval()(x)[1] >= 0).all()


def test_dropout_without_a_seed_varies_and_is_repeatable() -> None:
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        module = ResidualVQ(**levels(quantize_dropout=True))
        x = torch.randn(1, 4, D)
        runs.append([int((module(x)[1][0, 0] >= 0).sum()) for _ in range(20)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {1, 2, 3, 4}


def test_decoding_gives_what_forward_returned() -> None:
    for options in (OPTIONS["defaults"], OPTIONS["projection"], OPTIONS["sizes"]):
        ours, theirs = pair("ResidualVQ", **levels(**options))
        quantized, indices, _ = ours.eval()(torch.randn(SEQUENCE))
        agreement.assert_in_one_band(ours.get_output_from_indices(indices), quantized)
        for method in ("get_codes_from_indices", "get_output_from_indices"):
            one, other = getattr(ours, method)(indices), getattr(theirs, method)(indices)
            agreement.assert_in_one_band(one, other)


def test_fewer_levels_decode_as_theirs() -> None:
    ours, theirs = pair("ResidualVQ", **levels(quantize_dropout=True))
    indices = torch.randint(K, (2, 9, 2))
    indices[0, 3, 1] = -1
    one, other = ours.get_output_from_indices(indices), theirs.get_output_from_indices(indices)
    agreement.assert_in_one_band(one, other)


@pytest.mark.parametrize("options", [{}, {"codebook_dim": 8}], ids=["plain", "projection"])
def test_images_are_the_sequence_of_their_pixels(options: dict[str, Any]) -> None:
    """Theirs raises for every image."""
    image = ResidualVQ(**levels(**options), accept_image_fmap=True).eval()
    flat = ResidualVQ(**levels(**options)).eval()
    flat.load_state_dict(image.state_dict())
    x = torch.randn(2, D, 5, 6)
    quantized, indices, losses = image(x)
    expected = flat(x.flatten(2).mT)
    assert indices.shape == (2, 5, 6, Q)
    assert torch.equal(indices.flatten(1, 2), expected[1])
    agreement.assert_in_one_band(quantized.flatten(2).mT, expected[0])
    agreement.assert_in_one_band(image.get_output_from_indices(indices), quantized)
    assert image.get_codes_from_indices(indices).shape[:-1] == (Q, 2, 5, 6)
    assert losses.shape == (Q,)


def test_channels_first_is_the_sequence_turned() -> None:
    """Theirs raises."""
    first = ResidualVQ(**levels(), channel_last=False)
    last = ResidualVQ(**levels())
    last.load_state_dict(first.state_dict())
    x = torch.randn(SEQUENCE)
    one, other = first(x.mT), last(x)
    assert_same_output((one[0].mT, *one[1:]), other)


@pytest.mark.parametrize("options", [{}, {"codebook_size": (32, 16, 16, 8)}], ids=["one", "many"])
def test_one_op_in_evaluation_gives_the_bits_of_the_loop(options: dict[str, Any]) -> None:
    module = ResidualVQ(**levels(**options)).eval()
    x = torch.randn(SEQUENCE)
    fused = module(x, mask=MASK)
    calls: list[int] = []
    module.layers[0].register_forward_hook(lambda *_: calls.append(1))
    looped = module(x, mask=MASK)  # a hook of a level has to run
    assert calls
    for one, other in zip(fused, looped, strict=True):
        assert torch.equal(one, other)


def test_hooks_of_levels_run_in_training() -> None:
    module = ResidualVQ(**levels())
    calls: list[int] = []
    for number, layer in enumerate(module.layers):
        layer.register_forward_hook(lambda *_, number=number: calls.append(number))
    module(torch.randn(SEQUENCE))
    assert calls == [0, 1, 2, 3]


def test_attributes_that_are_read_downstream_are_theirs() -> None:
    for options in (OPTIONS["projection"], OPTIONS["sizes"], OPTIONS["shared"]):
        ours, theirs = pair("ResidualVQ", **levels(**options), quantize_dropout=True)
        for name in (
            *("num_quantizers", "codebook_dim", "codebook_size", "codebook_sizes"),
            *("has_projections", "accept_image_fmap", "quantize_dropout", "shared_codebook"),
            *("uniform_codebook_size", "return_zeros_for_masked_padding"),
        ):
            assert getattr(ours, name) == getattr(theirs, name), name
        for one, other in zip(ours.codebooks, theirs.codebooks, strict=True):
            assert torch.equal(one, other)
        assert len(list(ours.parameters())) == len(list(theirs.parameters()))


def test_a_shared_codebook_is_one_object() -> None:
    module = ResidualVQ(**levels(**OPTIONS["shared"]))
    assert len({id(layer._codebook) for layer in module.layers}) == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["ResidualVQ", "ResidualLFQ", "GroupedResidualVQ"])
def test_a_level_that_is_compiled_stays_a_level(name: str, training: bool) -> None:
    torch.manual_seed(0)
    module = getattr(compat, name)(**levels()).train(training)
    x = torch.randn(SEQUENCE)
    expected = copy.deepcopy(module)(x)
    parts = module.rvqs if name == "GroupedResidualVQ" else module.layers
    parts[0] = torch.compile(parts[0], backend="eager")
    for one, other in zip(module(x), expected, strict=True):
        assert torch.equal(one, other)
