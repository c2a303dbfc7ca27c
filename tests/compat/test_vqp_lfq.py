"""LFQ against that of vector-quantize-pytorch: same numbers, same state, none of its memory."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
import torch
import vector_quantize_pytorch
from budget import assert_within_budget
from cases import generator
from compat.agreement import assert_in_one_band, assert_steps_agree, gradients
from torch import Tensor, nn

from vqkernels.compat import CheckpointError, convert, revert
from vqkernels.compat.vector_quantize_pytorch import LFQ
from vqkernels.compat.vector_quantize_pytorch.lfq import Return

Theirs = vector_quantize_pytorch.LFQ
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"codebook_size": 64},
    "dim alone": {"dim": 6},
    "projected": {"codebook_size": 64, "dim": 10},
    "without bias": {"codebook_size": 64, "dim": 10, "projection_has_bias": False},
    "projections asked for": {"codebook_size": 64, "dim": 6, "has_projections": True},
    "commitment": {"codebook_size": 64, "commitment_loss_weight": 0.3},
    "diversity": {"codebook_size": 64, "diversity_gamma": 0.4, "entropy_loss_weight": 0.7},
    "activation": {"codebook_size": 64, "straight_through_activation": nn.Tanh()},
    "codebooks": {"codebook_size": 16, "num_codebooks": 3, "dim": 10},
    "one codebook kept": {"codebook_size": 64, "keep_num_codebooks_dim": True},
    "scale": {"codebook_size": 64, "codebook_scale": 0.25},
    "soft clamp": {"codebook_size": 64, "soft_clamp_input_value": 1.5},
    "cosine": {"codebook_size": 64, "dim": 10, "cosine_sim_project_in": True},
    "cosine scale": {
        "codebook_size": 64,
        "dim": 10,
        "cosine_sim_project_in": True,
        "cosine_sim_project_in_scale": 3.0,
    },
    "softplus": {
        "codebook_size": 64,
        "experimental_softplus_entropy_loss": True,
        "entropy_loss_offset": 1.0,
    },
    "spherical": {"codebook_size": 64, "spherical": True, "commitment_loss_weight": 0.3},
    "spherical scale": {"codebook_size": 64, "spherical": True, "codebook_scale": 2.0},
    "rotation": {"codebook_size": 64, "orthogonal_rotation": True},
    "not forced": {"codebook_size": 64, "force_quantization_f32": False},
    "channels first": {"codebook_size": 64, "dim": 10, "channel_first": True},
}
options = pytest.mark.parametrize("name", OPTIONS)


def _pair(name: str, seed: int = 0) -> tuple[LFQ, Theirs]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        theirs = Theirs(**OPTIONS[name])
        ours = LFQ(**OPTIONS[name])
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def _input(module: Any, *spatial: int, seed: int = 51) -> Tensor:
    """(2, *spatial, dim), or with the channels first where the module wants them there."""
    x = 0.4 * torch.randn(2, *spatial, module.dim, generator=generator(seed))
    first = len(spatial) > 1 if module.channel_first is None else module.channel_first
    return x.movedim(-1, 1) if first else x


def _exact(theirs: Theirs) -> Theirs:
    """The same in float64."""
    exact = copy.deepcopy(theirs).double()
    exact.force_quantization_f32 = False
    return exact


def _assert_close(ours: Tensor, theirs: Tensor, exact: Tensor, terms: float) -> None:
    """In one band, which theirs' own error widens: its logits are float32, and hundreds."""
    assert ours.dtype == theirs.dtype
    error = float((theirs.double() - exact).abs().max())
    assert_in_one_band(ours, theirs, terms=terms + error / torch.finfo(ours.dtype).eps / 32)


def _assert_agree(ours: nn.Module, theirs: Theirs, x: Tensor, **arguments: Any) -> None:
    """All that is returned, and the gradients in x and in the parameters."""
    found = [
        gradients(module, rows, lambda m, x: m(x, return_loss_breakdown=True, **arguments))
        for module, rows in ((ours, x), (theirs, x), (_exact(theirs), x.double()))
    ]
    (returned, losses), (expected, terms), (truth, true_terms) = (out for out, _, _ in found)
    assert returned._fields == expected._fields
    assert losses._fields == terms._fields
    assert torch.equal(returned.indices, expected.indices)
    assert returned.indices.dtype == expected.indices.dtype
    assert_in_one_band(returned.quantized, expected.quantized)
    # The loss is a difference of entropies, which are of the size of those of all codes.
    sides = ((returned[2], *losses), (expected[2], *terms), (truth[2], *true_terms))
    for values in zip(*sides, strict=True):
        _assert_close(*(value.detach() for value in values), terms=4.0)
    size = float(found[1][1].abs().max())
    _assert_close(*(of_x for _, of_x, _ in found), terms=size)
    for parameter in found[1][2]:
        _assert_close(*(learnt[parameter] for _, _, learnt in found), terms=size)


@pytest.mark.parametrize("inv_temperature", [1.0, 100.0])
@options
def test_a_training_step_is_theirs(name: str, inv_temperature: float) -> None:
    ours, theirs = _pair(name)
    _assert_agree(ours, theirs, _input(ours, 20), inv_temperature=inv_temperature)


@options
def test_evaluation_is_theirs(name: str) -> None:
    ours, theirs = (module.eval() for module in _pair(name))
    x = _input(ours, 20)
    with torch.no_grad():
        out, expected = ours(x), theirs(x)
    assert isinstance(out, Return)
    assert torch.equal(out.indices, expected.indices)
    assert_in_one_band(out.quantized, expected.quantized)
    assert float(out.entropy_aux_loss) == float(expected.entropy_aux_loss) == 0.0
    assert_in_one_band(ours.codebook, theirs.codebook)
    assert_in_one_band(ours.indices_to_codes(out.indices), theirs.indices_to_codes(out.indices))
    for project in (False, True):
        codes = (m.indices_to_codes(out.indices, project_out=project) for m in (ours, theirs))
        assert_in_one_band(*codes)


@pytest.mark.parametrize("spatial", [(3, 4), (2, 3, 2)], ids=["image", "video"])
@pytest.mark.parametrize("name", ["plain", "projected", "codebooks", "one codebook kept"])
def test_images_and_videos_are_served_alike(name: str, spatial: tuple[int, ...]) -> None:
    ours, theirs = _pair(name)
    x = _input(ours, *spatial)
    _assert_agree(ours, theirs, x)
    out = ours.eval()(x)
    assert out.quantized.shape == x.shape
    assert_in_one_band(
        ours.indices_to_codes(out.indices), theirs.eval().indices_to_codes(out.indices)
    )


@pytest.mark.parametrize("name", ["commitment", "codebooks", "spherical", "softplus"])
def test_a_mask_counts_in_the_losses_as_theirs_does(name: str) -> None:
    ours, theirs = _pair(name)
    x, mask = _input(ours, 20), torch.rand(2, 20, generator=generator(52)) < 0.6
    _assert_agree(ours, theirs, x, mask=mask)
    image = _input(ours, 4, 5)
    _assert_agree(ours, theirs, image, mask=mask)
    with torch.no_grad():
        assert torch.equal(ours(image, mask=mask)[2], ours(image, mask=mask.view(2, 4, 5))[2])


def test_a_mask_can_be_that_of_a_shorter_batch() -> None:
    """What theirs does without a mask, on the rows that the mask keeps."""
    mended = LFQ(codebook_size=64, commitment_loss_weight=0.3, bug_compatible=False)
    theirs = Theirs(codebook_size=64, commitment_loss_weight=0.3)
    x, mask = _input(mended, 20), torch.rand(2, 20, generator=generator(53)) < 0.6
    _, expected = theirs(x[mask][None], return_loss_breakdown=True)
    x[~mask] = torch.nan
    _, losses = mended(x, return_loss_breakdown=True, mask=mask)
    for one, other in zip(losses, expected, strict=True):
        assert_in_one_band(one, other, terms=4.0)
    _, defect = LFQ(codebook_size=64)(x, return_loss_breakdown=True, mask=mask)
    assert torch.equal(defect.batch_entropy, defect.per_sample_entropy)


@pytest.mark.parametrize("name", ["projected", "spherical"])
def test_fifty_training_steps_stay_in_step(name: str) -> None:
    ours, theirs = _pair(name)
    encoder = [nn.Sequential(nn.Linear(5, ours.dim), module) for module in (ours, theirs)]
    g = generator(54)
    batches = [torch.randn(2, 20, 5, generator=g) for _ in range(50)]
    assert_steps_agree(*encoder, batches, learning_rate=0.001)


def _entropy_errors(size: int) -> None:
    """Both in float32 against theirs in float64."""
    x = 0.02 * torch.randn(1, 48, size.bit_length() - 1, generator=generator(55))
    theirs = Theirs(codebook_size=size)
    exact = Theirs(codebook_size=size, force_quantization_f32=False).double()
    found = [
        gradients(module, rows, lambda m, x: m(x)[2])
        for module, rows in ((LFQ(codebook_size=size), x), (theirs, x), (exact, x.double()))
    ]
    (got, of_x, _), (eager, eager_x, _), (truth, exact_x, _) = found
    assert_within_budget(got.detach(), truth.detach(), eager.detach(), intermediate=1.0)
    assert_within_budget(of_x, exact_x, eager_x)


@pytest.mark.parametrize("bits", [4, 12, 16])
def test_entropies_are_nearer_to_float64_than_theirs(bits: int) -> None:
    """At 2^16 codes the probabilities are about 1e-5, where theirs floors the logarithm."""
    _entropy_errors(2**bits)


@pytest.mark.parametrize("masked", [False, True])
def test_a_fraction_of_the_rows_makes_the_entropies(masked: bool) -> None:
    ours = LFQ(codebook_size=64, frac_per_sample_entropy=0.3, bug_compatible=False)
    x = _input(ours, 25).requires_grad_()
    mask = (torch.arange(50) % 5 != 0).view(2, 25) if masked else None
    loss = ours(x, inv_temperature=1.0, mask=mask).entropy_aux_loss
    (grad,) = torch.autograd.grad(loss, x)
    chosen = grad.any(dim=-1)
    assert int(chosen.sum()) == int((40 if masked else 50) * 0.3)
    assert mask is None or not chosen[~mask].any()
    alone = LFQ(codebook_size=64)(x[chosen][None], inv_temperature=1.0).entropy_aux_loss
    assert_in_one_band(loss, alone, terms=4.0)
    again = ours(x, inv_temperature=1.0, mask=mask).entropy_aux_loss
    assert not torch.equal(loss, again)


def test_quantized_is_the_code_to_the_last_bit_and_shows_what_is_not_finite() -> None:
    ours = LFQ(codebook_size=64, codebook_scale=0.3)
    x = _input(ours, 20)
    out = ours(x)
    assert torch.equal(out.quantized, ours.codebook[out.indices])
    x[0, 3, 2], x[1, 5, 0] = torch.nan, torch.inf
    out = ours(x)
    assert torch.equal(out.quantized.isnan(), ~x.isfinite())
    assert out.entropy_aux_loss.isnan()


def test_no_codebook_is_stored() -> None:
    ours, theirs = _pair("projected")
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert {name for name, _ in theirs.named_buffers()} - {
        name for name, _ in ours.named_buffers()
    } == {"codebook"}
    assert ours.half().dtype == torch.float16
    assert ours.codebook.dtype == torch.float16


def test_sixty_two_bits_without_the_entropies() -> None:
    ours = LFQ(dim=62, entropy_loss_weight=0.0, commitment_loss_weight=0.2)
    x = _input(ours, 20)
    out = ours(x)
    bits = [[str(int(v > 0)) for v in row] for row in x.flatten(0, 1)]
    expected = torch.tensor([int("".join(row), 2) for row in bits]).view(2, 20)
    assert torch.equal(out.indices, expected)
    assert torch.equal(ours.indices_to_codes(out.indices), out.quantized)
    assert_in_one_band(out.entropy_aux_loss, 0.2 * (x - out.quantized).square().mean())
    with pytest.raises(NotImplementedError, match=r"^LFQ: entropy_loss_weight=0.1 with 2\^27 co"):
        LFQ(dim=27)


@pytest.mark.parametrize("name", OPTIONS)
def test_convert_takes_a_trained_one_and_revert_gives_it_back(name: str) -> None:
    _, theirs = _pair(name)
    model = nn.ModuleDict({"quantize": theirs})
    x = _input(theirs, 20)
    expected = theirs(x)
    parameters = dict(model.named_parameters())
    report = convert(model)
    assert [entry.new for entry in report.entries] == [f"{LFQ.__module__}.LFQ"]
    assert all(value is parameters[key] for key, value in model.named_parameters())
    out = model["quantize"](x)
    assert torch.equal(out.indices, expected.indices)
    assert_in_one_band(out.quantized, expected.quantized)
    assert_in_one_band(out[2], expected[2], terms=4.0)
    revert(model)
    assert type(model["quantize"]) is Theirs
    back = model["quantize"](x)
    assert torch.equal(back.quantized, expected.quantized)
    assert torch.equal(back[2], expected[2])


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_is_one_graph() -> None:
    torch._dynamo.reset()
    ours, _ = _pair("projected")
    compiled: Any = torch.compile(ours, backend="aot_eager", fullgraph=True)
    x, mask = _input(ours, 20), torch.arange(40).view(2, 20) % 3 != 0
    grads = []
    for call in (ours, compiled):
        leaf = x.clone().requires_grad_()
        out, losses = call(leaf, return_loss_breakdown=True, mask=mask)
        grads.append((*out, *losses, *torch.autograd.grad(out[0].sum() + out[2], leaf)))
    for one, other in zip(*grads, strict=True):
        assert_in_one_band(one.float(), other.float(), terms=1.0)
    torch._dynamo.reset()


def test_copies_are_alike() -> None:
    ours, _ = _pair("spherical")
    x = _input(ours, 20)
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(other(x)[2], ours(x)[2])


def test_a_checkpoint_that_does_not_fit_is_named() -> None:
    ours, theirs = _pair("projected")
    with pytest.raises(CheckpointError) as caught:
        ours.load_state_dict({f"module.{key}": v for key, v in theirs.state_dict().items()})
    assert caught.value.code == "module_prefix"
    other = Theirs(codebook_size=128, dim=10)
    with pytest.raises(CheckpointError) as caught:
        ours.load_state_dict(other.state_dict())
    assert caught.value.code == "wrong_shape"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "codebook_size must be given without dim, got None"),
        ({"codebook_size": 60}, "codebook_size must be a power of 2, got 60"),
        ({"dim": 63}, "codebook_size must be at most 2^62, got 2^63"),
        (
            {"dim": 4, "num_codebooks": 2, "keep_num_codebooks_dim": False},
            "keep_num_codebooks_dim must be True, got False",
        ),
        (
            {"dim": 4, "frac_per_sample_entropy": 0.0},
            "frac_per_sample_entropy must be above 0, got 0.0",
        ),
        (
            {"dim": 4, "soft_clamp_input_value": 0.5},
            "soft_clamp_input_value must be at least 1, got 0.5",
        ),
    ],
)
def test_the_constructor_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        LFQ(**arguments)


def test_a_bad_input_is_refused_by_name() -> None:
    ours = LFQ(dim=4)
    with pytest.raises(ValueError, match=r"^x must have size 4 in dimension 2"):
        ours(torch.zeros(2, 5, 3))
    with pytest.raises(ValueError, match=r"^mask must have shape \(2, 5\), got \(2, 4\)"):
        ours(torch.zeros(2, 5, 4), mask=torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"^mask must have shape \(2, 5\), got \(5, 2\)"):
        ours(torch.zeros(2, 5, 4), mask=torch.ones(5, 2, dtype=torch.bool))
