"""FSQ, ResidualFSQ and GroupedResidualFSQ against vector-quantize-pytorch 1.32."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as vqp
from compat import agreement
from torch import Tensor, nn
from vector_quantize_pytorch.residual_fsq import GroupedResidualFSQ as TheirGroupedResidualFSQ

from vqkernels import compat
from vqkernels.compat import vector_quantize_pytorch as ours_vqp

LEVELS = [8, 5, 5, 4]
D = len(LEVELS)
THEIRS: dict[str, Any] = {
    "FSQ": vqp.FSQ,
    "ResidualFSQ": vqp.ResidualFSQ,
    "GroupedResidualFSQ": TheirGroupedResidualFSQ,
}


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    """Ours with the state of theirs, and theirs."""
    torch.manual_seed(0)
    theirs = THEIRS[name](**options)
    ours = getattr(ours_vqp, name)(**options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def residual(**options: Any) -> dict[str, Any]:
    return {"levels": [5, 5, 4], "num_quantizers": 3, **options}


SEQUENCE, CHANNELS_FIRST, IMAGE = (3, 50, D), (3, D, 50), (2, D, 7, 5)
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "FSQ": ("FSQ", {"levels": LEVELS}, SEQUENCE),
    "tuple": ("FSQ", {"levels": tuple(LEVELS)}, SEQUENCE),
    "FSQ image": ("FSQ", {"levels": LEVELS}, IMAGE),
    "FSQ video": ("FSQ", {"levels": LEVELS}, (2, D, 3, 4, 5)),
    "FSQ channels first": ("FSQ", {"levels": LEVELS, "channel_first": True}, CHANNELS_FIRST),
    "FSQ one vector each": ("FSQ", {"levels": LEVELS, "channel_first": True}, (40, D)),
    "projection": ("FSQ", {"levels": LEVELS, "dim": 12}, (3, 50, 12)),
    "projection of an image": ("FSQ", {"levels": LEVELS, "dim": 12}, (2, 12, 7, 5)),
    "no bias": ("FSQ", {"levels": LEVELS, "dim": 12, "projection_has_bias": False}, (3, 50, 12)),
    "two codebooks": ("FSQ", {"levels": LEVELS, "num_codebooks": 2}, (3, 50, 2 * D)),
    "image of two": ("FSQ", {"levels": LEVELS, "num_codebooks": 2}, (2, 2 * D, 7, 5)),
    "kept axis": ("FSQ", {"levels": LEVELS, "keep_num_codebooks_dim": True}, SEQUENCE),
    "no indices": ("FSQ", {"levels": LEVELS, "return_indices": False}, SEQUENCE),
    "symmetric": ("FSQ", {"levels": [2, 3, 4, 7], "preserve_symmetry": True}, SEQUENCE),
    "clamp": ("FSQ", {"levels": LEVELS, "bound_hard_clamp": True}, SEQUENCE),
    "symmetric clamp": (
        *("FSQ", {"levels": LEVELS, "preserve_symmetry": True, "bound_hard_clamp": True}),
        SEQUENCE,
    ),
    "rotation": (
        *("FSQ", {"levels": [4] * 4, "orthogonal_rotation": True, "preserve_symmetry": True}),
        SEQUENCE,
    ),
    "noise": (
        *("FSQ", {"levels": LEVELS, "preserve_symmetry": True, "noise_dropout": 0.5}),
        SEQUENCE,
    ),
    "float64 narrowed": ("FSQ", {"levels": LEVELS, "allowed_dtypes": (torch.float32,)}, SEQUENCE),
    "ResidualFSQ": ("ResidualFSQ", residual(), (3, 50, 3)),
    "ResidualFSQ projection": ("ResidualFSQ", residual(dim=8), (3, 50, 8)),
    "ResidualFSQ image": ("ResidualFSQ", residual(dim=8, is_channel_first=True), (2, 8, 7, 5)),
    "ResidualFSQ tanh": ("ResidualFSQ", residual(bound_hard_clamp=False), (3, 50, 3)),
    "ResidualFSQ soft clamp": (
        *("ResidualFSQ", residual(bound_hard_clamp=False, soft_clamp_input_value=1.5)),
        (3, 50, 3),
    ),
    "ResidualFSQ clamp per channel": (
        *("ResidualFSQ", residual(bound_hard_clamp=False, soft_clamp_input_value=[1.5, 1.0, 2.0])),
        (3, 50, 3),
    ),
    "ResidualFSQ noise": ("ResidualFSQ", residual(noise_dropout=0.3), (3, 50, 3)),
    "GroupedResidualFSQ": (
        *("GroupedResidualFSQ", residual(dim=12, groups=2)),
        (3, 50, 12),
    ),
    "GroupedResidualFSQ image": (
        "GroupedResidualFSQ",
        residual(dim=12, groups=2, accept_image_fmap=True, is_channel_first=True),
        (2, 12, 7, 5),
    ),
}
TRAINABLE = [name for name, (_, options, _) in CASES.items() if options.get("dim")]


def seeded(module: nn.Module, x: Tensor) -> Any:
    """Noise is drawn by torch's generator: with one seed the draws are theirs."""
    torch.manual_seed(7)
    return module(x)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_step_is_theirs(name: str, training: bool) -> None:
    kind, options, shape = CASES[name]
    ours, theirs = pair(kind, **options)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    results = []
    for module in (ours, theirs):
        results.append(agreement.gradients(module.train(training), x, seeded))
    (out, grad, grads), (other, other_grad, other_grads) = results
    agreement.assert_in_one_band(out[0], other[0])
    assert (out[1] is None) == (other[1] is None)
    if other[1] is not None:
        assert out[1].dtype == other[1].dtype
        assert torch.equal(out[1], other[1])
    agreement.assert_in_one_band(grad, other_grad)
    assert grads.keys() == other_grads.keys()
    for key, value in grads.items():
        agreement.assert_in_one_band(value, other_grads[key])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("clamp", [False, True])
def test_indices_differ_only_where_theirs_are_not_those_of_float64(
    symmetric: bool, clamp: bool
) -> None:
    """2^18 values a channel. Theirs in float64 is the formula; in float32 it rounds across it."""
    options = {"preserve_symmetry": symmetric, "bound_hard_clamp": clamp}
    ours, theirs = pair("FSQ", levels=LEVELS, **options)
    x = torch.randn(1, 1 << 18, D, generator=torch.Generator().manual_seed(2))
    exact = theirs(x.double())[1]
    indices = ours(x)[1]
    assert torch.equal(indices, exact)
    assert torch.equal(ours(x.double())[1], exact)
    wrong = (theirs(x)[1] != exact).sum()
    assert wrong <= 4, wrong


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["FSQ", "symmetric", "ResidualFSQ", "noise"])
def test_half_precision_is_theirs(name: str, dtype: torch.dtype) -> None:
    kind, options, shape = CASES[name]
    ours, theirs = pair(kind, **options)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    out, grad, _ = agreement.gradients(ours, x, seeded)
    other, other_grad, _ = agreement.gradients(theirs, x, seeded)
    assert torch.equal(out[1], other[1])
    agreement.assert_in_one_band(out[0], other[0])
    agreement.assert_in_one_band(grad, other_grad)


def _loss(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    quantized, indices = module(x)
    return (quantized - 1.0).square().mean(), indices


@pytest.mark.parametrize("name", TRAINABLE)
def test_training_keeps_step(name: str) -> None:
    """Few vectors: among many, one lies on the edge of a level or of the clamp by a rounding."""
    kind, options, shape = CASES[name]
    ours, theirs = pair(kind, **options)
    generator = torch.Generator().manual_seed(4)
    batches = [torch.randn(shape, generator=generator)[:1, :20] for _ in range(50)]
    agreement.assert_steps_agree(ours, theirs, batches, _loss)


@pytest.mark.parametrize("name", CASES)
def test_checkpoints_load_both_ways(name: str) -> None:
    kind, options, _ = CASES[name]
    ours, theirs = pair(kind, **options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for tensor in ours.parameters():
        nn.init.normal_(tensor)
    theirs.load_state_dict(ours.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[key])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[0] == "FSQ"])
def test_attributes_and_conversions_of_fsq_are_theirs(name: str) -> None:
    kind, options, shape = CASES[name]
    ours, theirs = pair(kind, **options)
    x = torch.randn(shape)
    for attribute in (
        *("dim", "num_codebooks", "codebook_dim", "effective_codebook_dim", "scale"),
        *("keep_num_codebooks_dim", "channel_first", "return_indices", "allowed_dtypes"),
        *("has_projections", "preserve_symmetry", "noise_dropout", "bound_hard_clamp"),
        *("orthogonal_rotation", "force_quantization_f32"),
    ):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    for buffer in ("_levels", "_basis"):
        assert torch.equal(getattr(ours, buffer), getattr(theirs, buffer))
        assert getattr(ours, buffer).dtype == getattr(theirs, buffer).dtype
    z = torch.randn(6, 5, ours.codebook_dim)
    agreement.assert_in_one_band(ours.quantize(z), theirs.quantize(z))
    codes = theirs.quantize(z)
    assert torch.equal(ours.codes_to_indices(codes), theirs.codes_to_indices(codes))
    if not ours.return_indices:
        return
    assert ours.codebook_size == theirs.codebook_size
    agreement.assert_in_one_band(ours.implicit_codebook, theirs.implicit_codebook)
    indices = theirs.eval()(x)[1]
    levels = ours.indices_to_level_indices(indices)
    assert torch.equal(levels, theirs.indices_to_level_indices(indices))
    agreement.assert_in_one_band(ours.indices_to_codes(indices), theirs.indices_to_codes(indices))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[0] != "FSQ"])
def test_attributes_and_conversions_of_residual_fsq_are_theirs(name: str) -> None:
    kind, options, shape = CASES[name]
    ours, theirs = pair(kind, **options)
    assert ours.codebook_size == theirs.codebook_size
    agreement.assert_in_one_band(ours.codebooks, theirs.codebooks)
    if options.get("is_channel_first"):
        return  # what theirs decodes has the levels last, what its forward returns has not
    indices = theirs.eval()(torch.randn(shape))[1]
    for method in ("get_codes_from_indices", "get_output_from_indices"):
        agreement.assert_in_one_band(
            getattr(ours, method)(indices), getattr(theirs, method)(indices)
        )
    x = torch.randn(shape)
    for one, other in zip(
        ours.eval()(x, return_all_codes=True), theirs(x, return_all_codes=True), strict=True
    ):
        assert type(one) is type(other)
        for part, expected in zip(one, other, strict=True):
            assert part.shape == expected.shape
            assert part.dtype == expected.dtype


def test_images_decode_with_the_levels_last() -> None:
    ours, _ = pair("ResidualFSQ", **residual(dim=8, is_channel_first=True))
    x = torch.randn(2, 8, 7, 5)
    quantized, indices, codes = ours.eval()(x, return_all_codes=True)
    assert codes.shape == (3, 2, 7, 5, 3)
    decoded = ours.get_output_from_indices(indices.movedim(1, -1))
    agreement.assert_in_one_band(decoded.movedim(-1, 1), quantized)
    assert torch.equal(codes, ours.get_codes_from_indices(indices.movedim(1, -1)))


@pytest.mark.parametrize("multiple", [1, 2])
def test_dropout_with_a_given_seed_is_theirs(multiple: int) -> None:
    options = {"quantize_dropout": True, "quantize_dropout_multiple_of": multiple}
    ours, theirs = pair("ResidualFSQ", **residual(**options))
    x = torch.randn(2, 20, 3)
    dropped = set()
    for seed in range(10):
        one = ours(x, rand_quantize_dropout_fixed_seed=seed)
        other = theirs(x, rand_quantize_dropout_fixed_seed=seed)
        assert one[1].dtype == other[1].dtype
        assert torch.equal(one[1], other[1])
        agreement.assert_in_one_band(one[0], other[0])
        dropped.add(int((one[1][0, 0] == -1).sum()))
        coarse = one[1][..., :1]
        agreement.assert_in_one_band(
            ours.get_output_from_indices(coarse), theirs.get_output_from_indices(coarse)
        )
    assert len(dropped) > 1
    with torch.no_grad():
        assert (ours(x)[1] >= 0).all()


def test_groups_drop_the_same_levels() -> None:
    ours, _ = pair("GroupedResidualFSQ", **residual(dim=6, groups=2, quantize_dropout=True))
    kept = set()
    for _ in range(20):
        levels = (ours(torch.randn(2, 9, 6))[1] >= 0).flatten(1, 2).all(dim=1)
        assert torch.equal(levels[0], levels[1])
        kept.add(int(levels[0].sum()))
    assert kept == {1, 2, 3}


def test_a_codebook_that_theirs_would_allocate_is_never_made() -> None:
    levels = [16] * 10  # 2^40 codes: 2^42 floats
    ours = ours_vqp.FSQ(levels)
    x = torch.randn(1, 100, 10)
    quantized, indices = ours(x)
    assert indices.dtype == torch.int64
    assert indices.max() > 2**31
    assert torch.equal(ours.indices_to_codes(indices), quantized)
    assert torch.equal(ours.codes_to_indices(quantized), indices)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("FSQ", {"levels": LEVELS, "force_quantization_f32": False}, "force_quantization_f32=False"),
    ("FSQ", {"levels": LEVELS, "allowed_dtypes": (torch.bfloat16,)}, "allowed_dtypes"),
    ("ResidualFSQ", residual(num_codebooks=2), "num_codebooks=2"),
    ("ResidualFSQ", residual(return_indices=False), "return_indices=False"),
    ("ResidualFSQ", residual(channel_first=True), "channel_first=True"),
    ("ResidualFSQ", residual(keep_num_codebooks_dim=True), "keep_num_codebooks_dim=True"),
]


@pytest.mark.parametrize(("kind", "options", "named"), REFUSED, ids=[r[2] for r in REFUSED])
def test_what_is_not_served_is_refused_by_name(
    kind: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(NotImplementedError, match=named):
        getattr(ours_vqp, kind)(**options)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("FSQ", {"levels": [2, 3]}, r"levels\[0\] must be at least 3"),
    ("FSQ", {"levels": LEVELS, "noise_dropout": 0.5}, "noise_dropout must be 0"),
    (
        *("FSQ", {"levels": LEVELS, "num_codebooks": 2, "keep_num_codebooks_dim": False}),
        "keep_num_codebooks_dim must be True",
    ),
    ("ResidualFSQ", residual(soft_clamp_input_value=1.0), "soft_clamp_input_value must be None"),
    (
        *("ResidualFSQ", residual(quantize_dropout_cutoff_index=-1)),
        "quantize_dropout_cutoff_index must be at least 0",
    ),
    ("GroupedResidualFSQ", residual(dim=7, groups=2), "dim must be a multiple of groups=2"),
]


@pytest.mark.parametrize(("kind", "options", "named"), BAD, ids=[b[2] for b in BAD])
def test_bad_arguments_are_value_errors_where_theirs_assert(
    kind: str, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(AssertionError):
        THEIRS[kind](**options)
    with pytest.raises(ValueError, match=named):
        getattr(ours_vqp, kind)(**options)


def test_wrong_channels_are_named() -> None:
    with pytest.raises(ValueError, match="z must have 4 channels, got 5"):
        ours_vqp.FSQ(LEVELS)(torch.randn(2, 3, 5))
    with pytest.raises(ValueError, match="x must have size 6 in dimension 2"):
        ours_vqp.GroupedResidualFSQ(**residual(dim=6, groups=2))(torch.randn(2, 3, 5))
    with pytest.raises(ValueError, match="indices must have shape"):
        ours_vqp.ResidualFSQ(**residual()).get_output_from_indices(torch.zeros(1, 2, 2).long())
    with pytest.raises(ValueError, match="zhat must have 4 channels"):
        ours_vqp.FSQ(LEVELS).codes_to_indices(torch.randn(2, 5))


class _Model(nn.Module):
    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.quantizer = THEIRS[kind](**options)

    def forward(self, x: Tensor) -> Any:
        return self.quantizer(x)


@pytest.mark.parametrize("name", CASES)
def test_convert_and_revert(name: str) -> None:
    kind, options, shape = CASES[name]
    torch.manual_seed(0)
    model = _Model(kind, options).eval()
    before = copy.deepcopy(model)
    x = torch.randn(shape)
    report = compat.convert(model)
    assert [entry.reason for entry in report.entries] == [None], report
    assert type(model.quantizer) is getattr(ours_vqp, kind)
    one, other = model(x), before(x)
    agreement.assert_in_one_band(one[0], other[0])
    assert other[1] is None or torch.equal(one[1], other[1])
    assert list(model.state_dict()) == list(before.state_dict())
    compat.revert(model)
    assert type(model.quantizer) is THEIRS[kind]
    again = model(x)
    assert torch.equal(again[0], other[0])


@pytest.mark.parametrize("name", ["FSQ", "projection of an image", "rotation", "ResidualFSQ"])
def test_it_compiles_as_one_graph(name: str) -> None:
    kind, options, shape = CASES[name]
    ours, _ = pair(kind, **options)
    x = torch.randn(shape)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(x), ours(x), strict=True):
        assert torch.equal(one, other)


def test_every_code_is_reached_in_bfloat16() -> None:
    """The peer's known complaint: in bfloat16 arithmetic half of the codes were never used."""
    ours = ours_vqp.FSQ(LEVELS)
    counts = torch.tensor(LEVELS)
    shift = torch.where(counts % 2 == 0, 0.5, 0.0)
    reach = (counts - 1) * 1.001 / 2
    inside = ((ours.implicit_codebook * (counts // 2) + shift) / reach).clamp(-0.99, 0.99)
    x = inside.atanh() - (shift / reach).atanh()
    indices = ours(x[None].bfloat16())[1]
    assert torch.equal(indices[0].long(), torch.arange(math.prod(LEVELS)))
