"""ResidualLFQ and GroupedResidualLFQ against those of vector-quantize-pytorch."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from cases import generator
from compat.agreement import assert_in_one_band, assert_steps_agree, gradients
from torch import Tensor, nn
from vector_quantize_pytorch import GroupedResidualLFQ as TheirGroups
from vector_quantize_pytorch import ResidualLFQ as Theirs

from vqkernels.compat import convert, revert
from vqkernels.compat.vector_quantize_pytorch import GroupedResidualLFQ, ResidualLFQ

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"dim": 6},
    "projected": {"dim": 10},
    "soft clamp": {"dim": 6, "soft_clamp_input_value": 2.0},
    "spherical": {"dim": 6, "spherical": True},
    "rotation": {"dim": 6, "orthogonal_rotation": True},
    "commitment": {"dim": 10, "commitment_loss_weight": 0.2, "entropy_loss_weight": 0.5},
    "dropout": {"dim": 10, "quantize_dropout": True, "quantize_dropout_cutoff_index": 1},
    "dropout in twos": {
        "dim": 6,
        "quantize_dropout": True,
        "quantize_dropout_multiple_of": 2,
    },
}
options = pytest.mark.parametrize("name", OPTIONS)


def _pair(name: str) -> tuple[ResidualLFQ, Theirs]:
    arguments = {"codebook_size": 64, "num_quantizers": 4, **OPTIONS[name]}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        ours, theirs = ResidualLFQ(**arguments), Theirs(**arguments)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def _input(dim: int, count: int = 20, seed: int = 61) -> Tensor:
    return torch.randn(2, count, dim, generator=generator(seed))


@pytest.mark.parametrize("seed", [0, 3])
@options
def test_a_training_step_is_theirs(name: str, seed: int) -> None:
    ours, theirs = _pair(name)
    x = _input(OPTIONS[name]["dim"])

    def call(module: nn.Module, x: Tensor) -> Any:
        return module(x, return_all_codes=True, rand_quantize_dropout_fixed_seed=seed)

    (got, *grads), (expected, *wanted) = (gradients(m, x, call) for m in (ours, theirs))
    assert torch.equal(got[1], expected[1])
    for one, other in zip((got[0], *got[2:]), (expected[0], *expected[2:]), strict=True):
        assert_in_one_band(one, other, terms=4.0)
    upstream = float(wanted[0].abs().max())
    assert_in_one_band(grads[0], wanted[0], terms=upstream)
    for parameter, gradient in wanted[1].items():
        assert_in_one_band(grads[1][parameter], gradient, terms=upstream)


@options
def test_evaluation_and_its_way_back_are_theirs(name: str) -> None:
    ours, theirs = (module.eval() for module in _pair(name))
    x = _input(OPTIONS[name]["dim"])
    with torch.no_grad():
        got, expected = ours(x, return_all_codes=True), theirs(x, return_all_codes=True)
        back = [m.get_output_from_indices(expected[1]) for m in (ours, theirs)]
    assert torch.equal(got[1], expected[1])
    for one, other in zip(got, expected, strict=True):
        assert_in_one_band(one.float(), other.float())
    assert_in_one_band(*back)
    assert_in_one_band(ours.codebooks, theirs.codebooks)


@options
def test_the_way_back_can_be_that_of_forward(name: str) -> None:
    arguments = {"codebook_size": 64, "num_quantizers": 4, **OPTIONS[name]}
    ours = ResidualLFQ(**arguments, bug_compatible=False).eval()
    with torch.no_grad():
        quantized, indices, _ = ours(_input(OPTIONS[name]["dim"]))
        assert_in_one_band(ours.get_output_from_indices(indices), quantized)


def test_fewer_levels_are_taken_with_dropout_only() -> None:
    ours, theirs = _pair("dropout")
    indices = torch.randint(64, (2, 5, 3), generator=generator(62))
    indices[0, :, 2] = -1
    got, expected = (m.get_codes_from_indices(indices) for m in (ours, theirs))
    assert_in_one_band(got, expected)
    with pytest.raises(ValueError, match=r"^indices must have shape \(\*positions, 4\) without"):
        _pair("plain")[0].get_codes_from_indices(indices)


def test_dropout_draws_levels() -> None:
    ours, _ = _pair("dropout")
    x = _input(10)
    torch.manual_seed(0)
    kept = {int((ours(x)[1][0, 0] >= 0).sum()) for _ in range(20)}
    assert kept == {2, 3, 4}
    assert (ours.eval()(x)[1] >= 0).all()


def test_fifty_training_steps_stay_in_step() -> None:
    encoders = [nn.Sequential(nn.Linear(5, 10), module) for module in _pair("projected")]
    g = generator(63)
    batches = [torch.randn(2, 20, 5, generator=g) for _ in range(50)]
    assert_steps_agree(*encoders, batches, learning_rate=0.001)


@pytest.mark.parametrize("image", [False, True])
def test_groups_are_theirs(image: bool) -> None:
    arguments: dict[str, Any] = {
        "dim": 12,
        "groups": 2,
        "codebook_size": 64,
        "num_quantizers": 3,
        "accept_image_fmap": image,
    }
    ours, theirs = GroupedResidualLFQ(**arguments), TheirGroups(**arguments)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 12, 4, 4, generator=generator(64)) if image else _input(12)

    def call(module: nn.Module, x: Tensor) -> Any:
        return module(x, return_all_codes=not image)

    (got, grad, _), (expected, wanted, _) = (gradients(m, x, call) for m in (ours, theirs))
    assert torch.equal(got[1], expected[1])
    assert_in_one_band(got[0], expected[0])
    assert_in_one_band(got[2], expected[2], terms=4.0)
    assert_in_one_band(grad, wanted)
    assert ours.split_dim == theirs.split_dim
    assert_in_one_band(ours.codebooks, theirs.codebooks)
    if not image:
        for one, other in zip(got[3], expected[3], strict=True):
            assert_in_one_band(one, other)
        back = (m.get_output_from_indices(got[1]) for m in (ours, theirs))
        assert_in_one_band(*back)


@pytest.mark.parametrize("name", [*OPTIONS, "groups"])
def test_convert_takes_a_trained_one_and_revert_gives_it_back(name: str) -> None:
    if name == "groups":
        theirs = TheirGroups(dim=12, groups=2, codebook_size=64, num_quantizers=3).eval()
    else:
        theirs = _pair(name)[1].eval()
    x = _input(12 if name == "groups" else OPTIONS[name]["dim"])
    model = nn.ModuleDict({"quantize": theirs})
    kind = type(theirs)
    with torch.no_grad():
        expected = theirs(x)
        report = convert(model)
        assert len(report.entries) == 1
        got = model["quantize"](x)
        assert type(model["quantize"]) in (ResidualLFQ, GroupedResidualLFQ)
        assert torch.equal(got[1], expected[1])
        assert_in_one_band(got[0], expected[0])
        revert(model)
        assert type(model["quantize"]) is kind
        assert torch.equal(model["quantize"](x)[0], expected[0])


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_is_one_graph() -> None:
    torch._dynamo.reset()
    ours, _ = _pair("projected")
    compiled: Any = torch.compile(ours, backend="aot_eager", fullgraph=True)
    x = _input(10)
    for one, other in zip(compiled(x), ours(x), strict=True):
        assert_in_one_band(one.float(), other.float(), terms=1.0)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_quantizers": 0}, "num_quantizers must be at least 1, got 0"),
        ({"codebook_size": 60}, "codebook_size must be a power of 2, got 60"),
        (
            {"quantize_dropout": True, "quantize_dropout_cutoff_index": 4},
            "quantize_dropout_cutoff_index must be below num_quantizers=4, got 4",
        ),
        (
            {"num_codebooks": 2},
            "num_codebooks must be 1 and has_projections not True, got {'num_codebooks': 2}",
        ),
    ],
)
def test_the_constructor_refuses(arguments: dict[str, Any], message: str) -> None:
    defaults = {"dim": 10, "codebook_size": 64, "num_quantizers": 4}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ResidualLFQ(**{**defaults, **arguments})


def test_parameters_are_in_their_order() -> None:
    """The state of an optimizer goes by it."""
    options = {"dim": 10, "codebook_size": 64, "num_quantizers": 2}
    names = []
    for kind in (ResidualLFQ, Theirs):
        module = kind(**options, straight_through_activation=torch.nn.PReLU())
        names.append([name for name, _ in module.named_parameters()])
    assert names[0] == names[1]
