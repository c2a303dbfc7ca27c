"""The quantizers that are probed, behind one way of making and calling them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

import vqkernels as vq
from benchmarks.peers.training import HandWritten

DECAY = 0.99


class MissingError(Exception):
    """The contender has no such option."""


class Wanted(NamedTuple):
    """What a probe asks for; ``codes`` (K, D) are those that the module starts from.

    Attributes:
        revive: replacement of dead codes.
        cosine: cosine similarity.
        heads: parts of the vector with a codebook each; ``codes`` are one of them.
        in_dim: channels of x, projected to those of the codes; None: no projection.
        entropy: the diversity of the codes is part of the loss.
        image: x is (B, C, H, W).
    """

    codes: Any
    revive: bool = False
    cosine: bool = False
    heads: int = 1
    in_dim: int | None = None
    entropy: bool = False
    image: bool = False


class Result(NamedTuple):
    quantized: Tensor
    indices: Tensor
    loss: Tensor


@dataclasses.dataclass(frozen=True)
class Contender:
    """``make`` returns a module; x is (B, T, C), or (B, C, H, W) with ``image``."""

    name: str
    package: str
    make: Callable[[Wanted], nn.Module]
    call: Callable[[Any, Tensor, Tensor | None], Result]
    codebook: Callable[[Any], Tensor]
    cluster_size: Callable[[Any], Tensor]
    flush: Callable[[Any], None] = lambda module: None


def _ours(wanted: Wanted) -> nn.Module:
    k, d = wanted.codes.shape
    channel_dim = 1 if wanted.image else -1

    def single() -> vq.nn.VectorQuantizer:
        return vq.nn.VectorQuantizer(
            k,
            d,
            update=vq.EMA(DECAY),
            metric="cosine" if wanted.cosine else "l2",
            init=wanted.codes,
            revive=vq.Revive() if wanted.revive else None,
            regularize=(vq.Entropy(0.1, temperature=0.01),) if wanted.entropy else (),
            channel_dim=channel_dim,
        )

    module = single() if wanted.heads == 1 else vq.nn.GroupedVQ(single, wanted.heads)
    return module if wanted.in_dim is None else vq.nn.Projected(module, wanted.in_dim)


def _our_call(module: nn.Module, x: Tensor, mask: Tensor | None) -> Result:
    out = module(x, mask)
    return Result(out.quantized, out.indices, out.loss)


def _library(wanted: Wanted) -> nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    k, d = wanted.codes.shape
    module = VectorQuantize(
        dim=wanted.in_dim or wanted.heads * d,
        codebook_dim=d,
        codebook_size=k,
        heads=wanted.heads,
        separate_codebook_per_head=wanted.heads > 1,
        decay=DECAY,
        use_cosine_sim=wanted.cosine,
        threshold_ema_dead_code=2 if wanted.revive else 0,
        codebook_diversity_loss_weight=0.1 if wanted.entropy else 0.0,
        accept_image_fmap=wanted.image,
    )
    # With cosine similarity its codes are unit vectors, as it would have drawn them.
    codes = F.normalize(wanted.codes, dim=1) if wanted.cosine else wanted.codes
    module._codebook.embed.data.copy_(codes[None])
    module._codebook.embed_avg.data.copy_(codes[None])
    return module


def _library_call(module: nn.Module, x: Tensor, mask: Tensor | None) -> Result:
    return Result(*module(x, mask=mask)[:3])


def _hand_written(wanted: Wanted) -> nn.Module:
    if wanted._replace(codes=None) != Wanted(None):
        raise MissingError
    return HandWritten(wanted.codes)


def _hand_written_call(module: nn.Module, x: Tensor, mask: Tensor | None) -> Result:
    if mask is not None:
        raise MissingError
    return Result(*module(x))


def _only(module: nn.Module) -> Any:
    """The quantizer with the codebook, inside of whatever is around it."""
    return next(part for part in module.modules() if hasattr(part, "cluster_size"))


CONTENDERS = (
    Contender(
        "vqkernels",
        "vqkernels",
        _ours,
        _our_call,
        lambda module: _only(module).codebook,
        lambda module: _only(module).cluster_size,
        lambda module: module.flush(),
    ),
    Contender(
        "vector-quantize-pytorch",
        "vector-quantize-pytorch",
        _library,
        _library_call,
        lambda module: module._codebook.embed[0],
        lambda module: module._codebook.cluster_size[0],
    ),
    Contender(
        "hand-written torch",
        "torch",
        _hand_written,
        _hand_written_call,
        lambda module: module.codebook,
        lambda module: module.cluster_size,
    ),
)


def find(name: str) -> Contender:
    return next(contender for contender in CONTENDERS if contender.name == name)
