"""Options of VectorQuantize: which are refused, and which do not go together."""

from __future__ import annotations

from typing import Any

from torch import nn

from vqkernels import _checks
from vqkernels.compat._peer import refuse, unserved


def check_served(owner: nn.Module, options: dict[str, Any]) -> None:
    """Raises NotImplementedError for what we do not serve."""
    served: dict[str, Any] = {
        # Both need logits of -|x - c|, the distance itself and not its square.
        "commitment_use_cross_entropy_loss": False,
        "codebook_diversity_loss_weight": 0.0,
        "directional_reparam": False,
        "vq_bridge": None,
        "in_place_codebook_optimizer": None,
        "affine_param": False,
        "sync_kmeans": True,
    }
    unserved(owner, **{name: (options[name], value) for name, value in served.items()})
    if options["stochastic_sample_codes"] and not options["use_cosine_sim"]:
        # Theirs draws by -|x - c| / temperature, ours by the square of the distance.
        refuse(owner, "stochastic_sample_codes=True without use_cosine_sim=True")
    if options["straight_through"] and not options["route_gradients_to_input"]:
        # Only then the softmax over all codes, which theirs adds, gets a gradient.
        refuse(owner, "straight_through=True with route_gradients_to_input=False")


def check_consistent(options: dict[str, Any]) -> None:
    """Raises TypeError or ValueError for values out of range, and for what contradicts."""
    for name in ("dim", "codebook_size", "heads", "kmeans_iters"):
        _checks.integer_at_least(name, options[name], 1)
    for name in ("codebook_dim", "orthogonal_reg_max_codes"):
        if options[name] is not None:
            _checks.integer_at_least(name, options[name], 1)
    _checks.in_range("decay", options["decay"], 0.0, 1.0)
    _checks.in_range("sync_update_v", options["sync_update_v"], 0.0, 1.0)
    for name in ("eps", "threshold_ema_dead_code", "commitment_weight", "orthogonal_reg_weight"):
        _checks.at_least(name, options[name], 0.0)
    learnable = options["learnable_codebook"]
    if learnable and options["ema_update"]:
        raise ValueError("ema_update must be False with learnable_codebook=True, got True")
    for name in ("use_cosine_sim", "straight_through"):
        if learnable and options[name]:
            raise ValueError(f"{name} must be False with learnable_codebook=True, got True")
    if options["straight_through"] and options["rotation_trick"]:
        raise ValueError("rotation_trick must be False with straight_through=True, got True")
    if options["sync_update_v"] > 0.0 and not learnable:
        raise ValueError(
            "sync_update_v must be 0 without learnable_codebook=True, "
            f"got {options['sync_update_v']}"
        )
    if options["accept_image_fmap"] and options["accept_3d_fmap"]:
        raise ValueError("accept_3d_fmap must be False with accept_image_fmap=True, got True")


def arguments_of(theirs: Any) -> dict[str, Any]:
    """The constructor's arguments, read off a module of theirs."""
    book = theirs._codebook
    draws = book.gumbel_sample.keywords
    same = (
        *("dim", "codebook_size", "heads", "separate_codebook_per_head", "eps"),
        *("freeze_codebook", "use_cosine_sim", "channel_last", "accept_image_fmap"),
        *("accept_3d_fmap", "commitment_weight", "commitment_use_cross_entropy_loss"),
        *("orthogonal_reg_weight", "orthogonal_reg_active_codes_only"),
        *("orthogonal_reg_max_codes", "codebook_diversity_loss_weight"),
        *("codebook_diversity_temperature", "rotation_trick", "directional_reparam"),
        *("directional_reparam_variance", "learnable_codebook", "ema_update"),
        *("in_place_codebook_optimizer", "manual_in_place_optimizer_update"),
        *("sync_update_v", "return_zeros_for_masked_padding", "route_gradients_to_input"),
    )
    inside = (
        *("decay", "kmeans_iters", "threshold_ema_dead_code", "sample_codebook_temp"),
        *("vq_bridge", "manual_ema_update", "affine_param", "sync_affine_param"),
    )
    return {
        **{name: getattr(theirs, name) for name in same},
        **{name: getattr(book, name) for name in inside},
        "codebook_dim": book.embed.shape[-1],
        "kmeans_init": not bool(book.initted),
        # The function that draws over all ranks is taken where both options are on.
        "sync_kmeans": not book.use_ddp or "distributed" in book.sample_fn.__name__,
        "layernorm_after_project_in": isinstance(theirs.project_in, nn.Sequential),
        "stochastic_sample_codes": draws["stochastic"],
        "straight_through": draws["straight_through"],
        "sync_codebook": book.use_ddp,
    }
