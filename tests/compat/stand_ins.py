"""One of each class of ``vqkernels.compat``, small, with an input that it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vqkernels.compat import (
    audiocraft,
    dac,
    diffusers,
    encodec,
    mishalaskin,
    rosinality,
    taming,
    transformers,
    zalando,
)
from vqkernels.compat import vector_quantize_pytorch as vqp

K, D = 16, 4
IMAGES, SOUNDS, ROWS = (2, D, 3, 3), (2, D, 9), (2, 9, D)


class StandIn(NamedTuple):
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    call: Callable[[nn.Module, Tensor], Any] = lambda module, x: module(x)


def _of_sounds(library: Any) -> dict[str, StandIn]:
    """encodec and audiocraft have the same classes."""
    options: dict[str, Any] = {"dim": D, "codebook_size": K, "kmeans_init": False}
    levels = {"num_quantizers": 3, **options}
    kinds = {
        "EuclideanCodebook": StandIn(lambda: library.EuclideanCodebook(**options), ROWS),
        "VectorQuantization": StandIn(lambda: library.VectorQuantization(**options), SOUNDS),
        "ResidualVectorQuantization": StandIn(
            lambda: library.ResidualVectorQuantization(**levels), SOUNDS
        ),
        "ResidualVectorQuantizer": StandIn(
            lambda: library.ResidualVectorQuantizer(D, n_q=3, bins=K, kmeans_init=False),
            SOUNDS,
            lambda module, x: vars(module(x, 50)),
        ),
    }
    return {f"{library.__name__}.{name}": kind for name, kind in kinds.items()}


def _loaded(kind: type[nn.Module], config: Any) -> nn.Module:
    """Those of Hugging Face for inference hold zeros until a checkpoint is loaded."""
    module = kind(config)
    codes = {
        key: torch.randn_like(value)
        for key, value in module.state_dict().items()
        if key.endswith(("embed", "embed_sum"))
    }
    module.load_state_dict(codes, strict=False)
    return module


def _of_hugging_face() -> dict[str, StandIn]:
    base = {"codebook_size": K, "codebook_dim": D, "hidden_size": D, "frame_rate": 50}
    config = SimpleNamespace(
        **base,
        num_quantizers=3,
        num_semantic_quantizers=1,
        vector_quantization_hidden_dimension=D,
        n_codebooks=3,
        quantizer_dropout=0.5,
    )
    found = {}
    for name in transformers.__all__:
        kind = getattr(transformers, name)
        if name.startswith("Dac"):
            made = StandIn(functools.partial(kind, config), SOUNDS)
        else:
            shape = ROWS if name.endswith("Codebook") else SOUNDS
            make = functools.partial(_loaded, kind, config)
            made = StandIn(make, shape, lambda module, x: module.encode(x))
        found[f"{transformers.__name__}.{name}"] = made
    return found


def _of_vqp() -> dict[str, StandIn]:
    """vector-quantize-pytorch; 2-channel levels and 4 bits where the code is no table."""
    levels = {"dim": D, "num_quantizers": 3}
    arguments: dict[str, dict[str, Any]] = {
        "VectorQuantize": {"dim": D, "codebook_size": K},
        "ResidualVQ": {**levels, "codebook_size": K},
        "GroupedResidualVQ": {**levels, "codebook_size": K, "groups": 2},
        "FSQ": {"levels": [5, 4, 3, 3]},
        "ResidualFSQ": {**levels, "levels": [5, 3]},
        "GroupedResidualFSQ": {**levels, "levels": [5, 3], "groups": 2},
        "LFQ": {"dim": D, "codebook_size": 16},
        "ResidualLFQ": {**levels, "codebook_size": 16},
        "GroupedResidualLFQ": {**levels, "codebook_size": 4, "groups": 2},
        "SimVQ": {"dim": D, "codebook_size": K},
        "ResidualSimVQ": {**levels, "codebook_size": K},
        "RandomProjectionQuantizer": {"dim": D, "codebook_size": K, "codebook_dim": 3},
    }
    return {
        f"{vqp.__name__}.{name}": StandIn(functools.partial(getattr(vqp, name), **options), ROWS)
        for name, options in arguments.items()
    }


_VQGAN = {
    f"{library.__name__}.{name}": StandIn(make, IMAGES)
    for library, name, make in (
        (diffusers, "VectorQuantizer", lambda: diffusers.VectorQuantizer(K, D, 0.25)),
        (taming, "VectorQuantizer", lambda: taming.VectorQuantizer(K, D, 0.25)),
        (taming, "VectorQuantizer2", lambda: taming.VectorQuantizer2(K, D, 0.25)),
        (taming, "EMAVectorQuantizer", lambda: taming.EMAVectorQuantizer(K, D, 0.25)),
        (taming, "GumbelQuantize", lambda: taming.GumbelQuantize(D, D, K)),
        (mishalaskin, "VectorQuantizer", lambda: mishalaskin.VectorQuantizer(K, D, 0.25)),
        (zalando, "VectorQuantizer", lambda: zalando.VectorQuantizer(K, D, 0.25)),
        (zalando, "VectorQuantizerEMA", lambda: zalando.VectorQuantizerEMA(K, D, 0.25, 0.99)),
    )
}

STAND_INS: dict[str, StandIn] = {
    **_of_sounds(audiocraft),
    **_of_sounds(encodec),
    **_of_hugging_face(),
    **_of_vqp(),
    **_VQGAN,
    f"{rosinality.__name__}.Quantize": StandIn(lambda: rosinality.Quantize(D, K), ROWS),
    f"{dac.__name__}.VectorQuantize": StandIn(lambda: dac.VectorQuantize(D, K, 3), SOUNDS),
    f"{dac.__name__}.ResidualVectorQuantize": StandIn(
        lambda: dac.ResidualVectorQuantize(D, 3, K, 3), SOUNDS
    ),
}
