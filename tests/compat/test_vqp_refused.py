"""What is not served, or contradicts itself, is refused by name and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vqkernels.compat.vector_quantize_pytorch import (
    GroupedResidualVQ,
    ResidualVQ,
    VectorQuantize,
)

D, K = 8, 16
UNSERVED: dict[str, Any] = {
    "commitment_use_cross_entropy_loss": True,
    "codebook_diversity_loss_weight": 0.1,
    "directional_reparam": True,
    "vq_bridge": nn.Identity(),
    "in_place_codebook_optimizer": torch.optim.SGD,
    "affine_param": True,
    "sync_kmeans": False,
    "stochastic_sample_codes": True,
}
UNSERVED_LEVELS: dict[str, Any] = {
    "diveq": True,
    "implicit_neural_codebook": True,
    "quant_grad_frac": 0.5,
    "beam_size": 2,
    "affine_param": True,
}
CONTRADICTORY: dict[str, tuple[dict[str, Any], str]] = {
    "cosine": ({"use_cosine_sim": True, "learnable_codebook": True, "ema_update": False}, "cos"),
    "average": ({"learnable_codebook": True}, "ema_update must be False"),
    "estimators": ({"straight_through": True}, "rotation_trick must be False"),
    "synchronous": ({"sync_update_v": 0.5}, "sync_update_v must be 0"),
    "layouts": ({"accept_image_fmap": True, "accept_3d_fmap": True}, "accept_3d_fmap must be"),
    "size": ({"codebook_dim": 0}, "codebook_dim must be at least 1, got 0"),
    "decay": ({"decay": 1.5}, "decay must be in"),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_an_option_that_is_not_served_is_named(name: str) -> None:
    with pytest.raises(NotImplementedError, match=rf"VectorQuantize: {name}=.* is not served"):
        VectorQuantize(dim=D, codebook_size=K, **{name: UNSERVED[name]})


def test_a_softmax_gradient_is_not_served() -> None:
    options = {"straight_through": True, "rotation_trick": False}
    with pytest.raises(NotImplementedError, match="route_gradients_to_input=False"):
        VectorQuantize(dim=D, codebook_size=K, route_gradients_to_input=False, **options)


@pytest.mark.parametrize("name", UNSERVED_LEVELS)
def test_an_option_of_levels_that_is_not_served_is_named(name: str) -> None:
    options = {"dim": D, "codebook_size": K, "num_quantizers": 2, name: UNSERVED_LEVELS[name]}
    for kind in (ResidualVQ, GroupedResidualVQ):
        with pytest.raises(NotImplementedError, match=rf"{name}=.* is not served by vqkernels"):
            kind(**options)


@pytest.mark.parametrize(
    "arguments",
    [
        {"indices": torch.zeros(1, 4, dtype=torch.int64)},
        {"codebook_transform_fn": torch.relu},
        {"ema_update_weight": torch.ones(K)},
        {"accum_ema_update": True},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_an_argument_that_is_not_served_is_named(arguments: dict[str, Any]) -> None:
    module = VectorQuantize(dim=D, codebook_size=K)
    before = module.codebook.clone()
    with pytest.raises(NotImplementedError, match=next(iter(arguments))):
        module(torch.randn(1, 4, D), **arguments)
    assert torch.equal(module.codebook, before)


def test_arguments_of_levels_that_are_not_served_are_named() -> None:
    module = ResidualVQ(dim=D, codebook_size=K, num_quantizers=2)
    for arguments in ({"indices": torch.zeros(1, 4, 2, dtype=torch.int64)}, {"beam_size": 2}):
        with pytest.raises(NotImplementedError, match=next(iter(arguments))):
            module(torch.randn(1, 4, D), **arguments)
    grouped = GroupedResidualVQ(dim=D, codebook_size=K, num_quantizers=2, groups=2)
    with pytest.raises(NotImplementedError, match="indices"):
        grouped(torch.randn(1, 4, D), indices=torch.zeros(2, 1, 4, 2, dtype=torch.int64))


def test_options_without_an_effect_are_taken() -> None:
    idle = {
        "codebook_diversity_temperature": 10.0,
        "directional_reparam_variance": 0.1,
        "sync_affine_param": True,
        "manual_in_place_optimizer_update": True,
        "affine_param_batch_decay": 0.5,
        "affine_param_codebook_decay": 0.5,
    }
    VectorQuantize(dim=D, codebook_size=K, **idle)
    ResidualVQ(dim=D, codebook_size=K, num_quantizers=2, beam_size=1)(torch.randn(1, 4, D))


@pytest.mark.parametrize("name", CONTRADICTORY)
def test_options_that_contradict_are_named(name: str) -> None:
    options, message = CONTRADICTORY[name]
    with pytest.raises(ValueError, match=message):
        VectorQuantize(dim=D, codebook_size=K, **options)


BAD_CALLS: dict[str, tuple[dict[str, Any], Any, dict[str, Any], type[Exception], str]] = {
    "kind": ({}, [1.0], {}, TypeError, "x must be a torch.Tensor"),
    "integers": ({}, torch.ones(1, 4, D, dtype=torch.int64), {}, TypeError, "x must be float32"),
    "width": ({}, torch.ones(1, 4, D + 1), {}, ValueError, "x must have size 8 in dimension 2"),
    "channels first": (
        {"channel_last": False},
        torch.ones(1, 4, D),
        {},
        ValueError,
        "x must have size 8 in dimension 1",
    ),
    "image": (
        {"accept_image_fmap": True},
        torch.ones(1, 4, D),
        {},
        ValueError,
        "x must have 4 dimensions",
    ),
    "mask": ({}, torch.ones(1, 4, D), {"mask": torch.ones(4)}, TypeError, "mask must be torch.bo"),
    "mask's shape": (
        {},
        torch.ones(1, 4, D),
        {"mask": torch.ones(1, 5, dtype=torch.bool)},
        ValueError,
        r"mask must have shape \(1, 4\), got \(1, 5\)",
    ),
    "lens and mask": (
        {},
        torch.ones(1, 4, D),
        {"mask": torch.ones(1, 4, dtype=torch.bool), "lens": torch.ones(1, dtype=torch.int64)},
        ValueError,
        "lens must be None with a mask",
    ),
    "topk": ({}, torch.ones(1, 4, D), {"topk": 0}, ValueError, "topk must be at least 1, got 0"),
    "topk of heads": (
        {"heads": 2, "codebook_dim": 4},
        torch.ones(1, 4, D),
        {"topk": 2},
        ValueError,
        "topk must be None with heads=2",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_is_explained_and_changes_nothing(name: str) -> None:
    options, x, arguments, error, message = BAD_CALLS[name]
    module = VectorQuantize(dim=D, codebook_size=K, **options)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(error, match=message):
        module(x, **arguments)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_quantizers": 2, "heads": 2}, "heads must be 1, got 2"),
        ({}, "num_quantizers must be given"),
        ({"codebook_size": (4, 8), "num_quantizers": 3}, "codebook_size must have one size"),
        ({"codebook_size": (4, 8), "shared_codebook": True}, "codebook_size must be one"),
        (
            {"num_quantizers": 2, "quantize_dropout": True, "quantize_dropout_cutoff_index": 2},
            "quantize_dropout_cutoff_index must be below num_quantizers=2, got",
        ),
    ],
)
def test_levels_that_do_not_fit_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualVQ(**{"dim": D, "codebook_size": K, **options})


def test_bad_statistics_are_explained_and_change_nothing() -> None:
    module = VectorQuantize(dim=D, codebook_size=K, threshold_ema_dead_code=2, codebook_dim=4)
    before = module.codebook.clone()
    with pytest.raises(ValueError, match=r"indices must have shape \(1, 4\), got \(1, 5\)"):
        module.update_indices(torch.randn(1, 4, D), torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="x must have size 4 in dimension 2"):
        module.expire_codes_(torch.randn(1, 4, D))
    assert torch.equal(module.codebook, before)


def test_bad_indices_are_explained() -> None:
    heads = VectorQuantize(dim=D, codebook_size=K, heads=2, separate_codebook_per_head=True)
    with pytest.raises(ValueError, match=r"indices must have shape \(\*positions, 2\)"):
        heads.get_codes_from_indices(torch.zeros(1, 4, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"indices must be in \[-1, 15\], got 16"):
        VectorQuantize(dim=D, codebook_size=K).get_codes_from_indices(torch.tensor([16]))
    levels = ResidualVQ(dim=D, codebook_size=K, num_quantizers=2)
    with pytest.raises(ValueError, match="without quantize_dropout"):
        levels.get_codes_from_indices(torch.zeros(1, 4, 1, dtype=torch.int64))
