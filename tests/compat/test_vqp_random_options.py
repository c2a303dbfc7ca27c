"""Options of vector-quantize-pytorch in combinations that are drawn at random."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
import torch
from compat.vqp_pairs import assert_same_step, pair
from torch import Tensor

D, K = 16, 32


class Case(NamedTuple):
    """What is constructed, what is passed, and the shape of x."""

    name: str
    options: dict[str, Any]
    arguments: dict[str, Any]
    shape: tuple[int, ...]


class Draw(random.Random):
    def some(self, **choices: Any) -> dict[str, Any]:
        """One value each for some of the names."""
        return {
            name: self.choice(values) for name, values in choices.items() if self.random() < 0.3
        }

    def mask(self, batch: int, length: int) -> Tensor:
        mask = torch.tensor([[self.random() < 0.7 for _ in range(length)] for _ in range(batch)])
        mask[0, 0] = True
        return mask


def codebooks(draw: Draw) -> dict[str, Any]:
    """Options that VectorQuantize and the residual quantizers share."""
    kind = draw.choice(["average", "average", "cosine", "gradient", "rest"])
    options = draw.some(
        decay=[0.5, 0.99],
        eps=[1e-3],
        commitment_weight=[0.0, 0.25],
        codebook_dim=[4, 8],
        rotation_trick=[True, False],
        manual_ema_update=[True],
        return_zeros_for_masked_padding=[False],
    )
    if kind == "gradient":
        options |= {
            "learnable_codebook": True,
            "ema_update": False,
            **draw.some(sync_update_v=[0.3]),
        }
    else:
        options |= draw.some(orthogonal_reg_weight=[2.0], freeze_codebook=[True])
        options |= {"use_cosine_sim": kind == "cosine", "ema_update": kind != "rest"}
        if options.get("rotation_trick") is False:
            options |= draw.some(straight_through=[True])
    return options


def vector_quantize(draw: Draw, batch: int, length: int) -> Case:
    options = codebooks(draw)
    layouts: dict[str, tuple[int, ...]] = {
        "channel_last": (batch, D, length),
        "accept_image_fmap": (batch, D, 3, length),
        "accept_3d_fmap": (batch, D, 2, 3, length),
        "one token": (length, D),
    }
    shape = (batch, length, D)
    if draw.random() < 0.5:
        layout = draw.choice(list(layouts))
        shape = layouts[layout]
        if layout != "one token":
            options[layout] = layout != "channel_last"
    arguments = draw.some(return_loss_breakdown=[True], freeze_codebook=[True, False])
    if draw.random() < 0.4:
        options |= {"heads": 2, **draw.some(separate_codebook_per_head=[True])}
    elif not options.get("straight_through"):
        arguments |= draw.some(topk=[1, 3])
    # A mask and cosine or a projection do not go together in theirs.
    plain = not options.get("use_cosine_sim") and options.keys().isdisjoint(
        {"codebook_dim", "heads"}
    )
    if plain and shape == (batch, length, D):
        arguments |= draw.some(mask=[draw.mask(batch, length)])
    return Case("VectorQuantize", options, arguments, shape)


def residual_vq(draw: Draw, batch: int, length: int) -> Case:
    options = {**codebooks(draw), "num_quantizers": draw.choice([1, 3])}
    arguments = draw.some(return_all_codes=[True])
    if "orthogonal_reg_weight" not in options:  # its gradient in theirs is that of moved codes
        options |= draw.some(shared_codebook=[True])
    if not options.get("use_cosine_sim"):
        arguments |= draw.some(mask=[draw.mask(batch, length)])
    if draw.random() < 0.3:
        return Case("GroupedResidualVQ", {**options, "groups": 2}, arguments, (batch, length, D))
    if draw.random() < 0.4:
        options |= {"quantize_dropout": True, **draw.some(quantize_dropout_multiple_of=[2])}
        arguments |= {"rand_quantize_dropout_fixed_seed": draw.randrange(100)}
    return Case("ResidualVQ", options, arguments, (batch, length, D))


def sim_vq(draw: Draw, batch: int, length: int) -> Case:
    options = draw.some(
        rotation_trick=[False],
        input_to_quantize_commit_loss_weight=[0.0, 1.0],
        commitment_weight=[0.5],
        frozen_codebook_dim=[4],
    )
    shape = draw.choice([(batch, length, D), (batch, 3, length, D)])
    if draw.random() < 0.4:
        options["channel_first"] = True
        shape = (batch, D, *shape[1:-1])
    if draw.random() < 0.5:
        return Case("SimVQ", options, {}, shape)
    options["num_quantizers"] = draw.choice([1, 3])
    return Case("ResidualSimVQ", options, draw.some(return_all_codes=[True]), shape)


def fsq(draw: Draw, batch: int, length: int) -> Case:
    levels = draw.choice([[8, 5, 5], [3, 4], [5, 5, 5, 5]])
    options = {
        "levels": levels,
        **draw.some(bound_hard_clamp=[True, False], projection_has_bias=[False]),
        **draw.some(orthogonal_rotation=[True]),
    }
    if draw.random() < 0.5:
        options |= {"dim": D, "num_quantizers": draw.choice([1, 2, 3])}
        if options.get("bound_hard_clamp") is False:
            options |= draw.some(soft_clamp_input_value=[1.5])
        return Case("ResidualFSQ", options, draw.some(return_all_codes=[True]), (batch, length, D))
    options |= draw.some(
        num_codebooks=[2], dim=[D], preserve_symmetry=[True], channel_first=[True]
    )
    width = options.get("dim", len(levels) * options.get("num_codebooks", 1))
    shape = (batch, width, length) if options.get("channel_first") else (batch, length, width)
    return Case("FSQ", options, {}, shape)


def lfq(draw: Draw, batch: int, length: int) -> Case:
    options = {
        "codebook_size": draw.choice([4, 16, 64]),
        **draw.some(entropy_loss_weight=[0.0, 1.0], commitment_loss_weight=[0.5]),
        "diversity_gamma": 2.0,  # at 1 the loss is what two entropies leave that cancel
        **draw.some(spherical=[True], orthogonal_rotation=[True]),
        **draw.some(straight_through_activation=[torch.nn.Tanh(), torch.nn.PReLU()]),
        **draw.some(experimental_softplus_entropy_loss=[True], entropy_loss_offset=[1.0]),
    }
    arguments = draw.some(mask=[draw.mask(batch, length)])
    if draw.random() < 0.3:
        options |= {"dim": D, "num_quantizers": draw.choice([1, 3])}
        return Case("ResidualLFQ", options, arguments, (batch, length, D))
    options |= draw.some(num_codebooks=[2], codebook_scale=[0.5], soft_clamp_input_value=[2.0])
    options |= {"dim": D, **draw.some(cosine_sim_project_in=[True], projection_has_bias=[False])}
    arguments |= {
        "inv_temperature": draw.choice([1.0, 10.0]),
        **draw.some(return_loss_breakdown=[True]),
    }
    shape = (batch, length, D)
    if draw.random() < 0.3:
        options["channel_first"] = True
        shape = (batch, D, length)
    return Case("LFQ", options, arguments, shape)


FAMILIES = (vector_quantize, vector_quantize, residual_vq, sim_vq, fsq, lfq)


@pytest.mark.parametrize("seed", range(60))
def test_a_step_with_any_options_is_theirs(seed: int) -> None:
    draw = Draw(seed)
    family = FAMILIES[seed % len(FAMILIES)]
    name, options, arguments, shape = family(draw, draw.choice([1, 3]), draw.choice([7, 37]))
    if family in (vector_quantize, residual_vq, sim_vq):
        options |= {"dim": D, "codebook_size": K}
    ours, theirs = pair(name, seed, **options)
    names = [[key for key, _ in module.named_parameters()] for module in (ours, theirs)]
    assert names[0] == names[1]  # what an optimizer's state goes by
    assert_same_step(ours, theirs, torch.randn(shape), lambda module, x: module(x, **arguments))
