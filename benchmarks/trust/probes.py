"""Probes that one process can make."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks import memory
from benchmarks.trust.contenders import DECAY, Contender, MissingError, Wanted

_ROWS, _CODES, _CHANNELS = 4096, 8192, 64


def autocast(contender: Contender) -> str:
    """Rows whose index differs between CPU bfloat16 autocast and without it."""
    x, codes = _gaussian(_ROWS, _CHANNELS, 0), _gaussian(_CODES, _CHANNELS, 1)
    module = contender.make(Wanted(codes[0])).eval()
    plain = contender.call(module, x, None).indices
    with torch.autocast("cpu", torch.bfloat16):
        cast = contender.call(module, x, None).indices
    return f"{int((plain != cast).sum())} of {_ROWS}"


def breaks_in_training(contender: Contender) -> str:
    return _breaks(contender, training=True)


def breaks_in_eval(contender: Contender) -> str:
    return _breaks(contender, training=False)


def moves_when_checkpointed(contender: Contender) -> str:
    """EMA moves per training step of a checkpointed region.

    With one code the average size is s <- g*s + (1-g)*N at every move, whatever x holds.
    """
    steps, rows = 8, 64
    module = contender.make(Wanted(_gaussian(1, 4, 0)[0])).train()
    for step in range(steps):
        x = _gaussian(rows, 4, step).requires_grad_()
        # The square stands for what follows in the region: the recompute has to get that far.
        out = checkpoint(
            lambda x: contender.call(module, x, None).quantized.square(), x, use_reentrant=False
        )
        out.sum().backward()
    contender.flush(module)
    left = (rows - float(contender.cluster_size(module))) / (rows - 1)
    return f"{math.log(left) / math.log(DECAY) / steps:.2g}"


def masked_projection(contender: Contender) -> str:
    return _mask_is_kept(contender, Wanted(_codes(), in_dim=32), (32,))


def masked_heads(contender: Contender) -> str:
    return _mask_is_kept(contender, Wanted(_codes(), heads=2), (16,))


def masked_cosine(contender: Contender) -> str:
    return _mask_is_kept(contender, Wanted(_codes(), cosine=True), (8,))


def masked_image(contender: Contender) -> str:
    return _mask_is_kept(contender, Wanted(_codes(), image=True), (8,))


def fully_masked(contender: Contender) -> str:
    """The loss of a batch in which nothing counts."""
    module = contender.make(Wanted(_codes())).train()
    x = _gaussian(64, 8, 1)
    result = contender.call(module, x, torch.zeros(1, 64, dtype=torch.bool))
    return f"{float(result.loss):g}"


def revival(contender: Contender) -> str:
    """Codes of 64 that a fresh batch uses after 200 steps, 60 having started far from all data."""
    codes = _gaussian(64, 8, 0)[0]
    codes[4:] += 1000.0
    module = contender.make(Wanted(codes, revive=True)).train()
    for step in range(200):
        contender.call(module, _gaussian(1024, 8, 1 + step), None)
    contender.flush(module)
    indices = contender.call(module.eval(), _gaussian(16384, 8, 1000), None).indices
    return f"{len(indices.unique())} of 64"


def entropy_memory(contender: Contender) -> str:
    """Peak bytes per N*K of a training step whose loss looks at all codes."""
    codes, few = _gaussian(_CODES, 16, 1)[0], _gaussian(64, 16, 0)
    module = contender.make(Wanted(codes, entropy=True)).train()

    def step(x: Tensor) -> None:
        result = contender.call(module, x.clone().requires_grad_(), None)
        (result.quantized.sum() + result.loss).backward()

    step(few)
    x = _gaussian(4 * _ROWS, 16, 2)
    peak = memory.peak_extra(lambda: step(x), x.device)
    return "not known here" if peak is None else f"{peak / (x.shape[1] * _CODES):.1f}"


def _breaks(contender: Contender, *, training: bool) -> str:
    codes = _gaussian(64, 8, 0)[0]
    module = contender.make(Wanted(codes, revive=contender.name != "hand-written torch"))
    module.train(training)
    x = _gaussian(256, 8, 1)
    contender.call(module, x, None)
    explained = torch._dynamo.explain(lambda x: contender.call(module, x, None))(x)
    return str(explained.graph_break_count)


def _mask_is_kept(contender: Contender, wanted: Wanted, channels: tuple[int, ...]) -> str:
    """Whether nothing else depends on what masked positions hold, and a full mask is none."""
    module = contender.make(wanted).train()
    mask = torch.arange(64) % 3 != 0
    if wanted.image:
        x, mask = _gaussian(64, channels[0], 5)[0].T.reshape(1, -1, 8, 8), mask.view(1, 8, 8)
        where = mask[:, None]
    else:
        x, mask = _gaussian(64, channels[0], 5), mask[None]
        where = mask[..., None]
    seen = []
    for garbage in (0.0, 1e3):
        twin = copy.deepcopy(module)
        result = contender.call(twin, torch.where(where, x, garbage), mask)
        contender.flush(twin)
        kept = [result.indices[mask], result.loss, contender.codebook(twin)]
        seen.append([value.detach() for value in kept])
    if not all(torch.equal(first, second) for first, second in zip(*seen, strict=True)):
        return "masked positions change the result"
    every = contender.call(copy.deepcopy(module), x, torch.ones_like(mask)).loss.detach()
    without = contender.call(copy.deepcopy(module), x, None).loss.detach()
    if torch.allclose(every, without):
        return "works"
    return f"a mask of ones turns the loss {float(without):.3f} into {float(every):.3f}"


def _gaussian(rows: int, channels: int, seed: int) -> Tensor:
    """(1, rows, channels)"""
    return torch.randn(1, rows, channels, generator=torch.Generator().manual_seed(seed))


def _codes() -> Tensor:
    return _gaussian(16, 8, 0)[0]


def outcome(probe: Callable[[Contender], str], contender: Contender) -> str:
    """What the probe found, or how the contender declined."""
    try:
        return probe(contender)
    except MissingError:
        return "no such option"
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__}: {first}".rstrip(": ")


PROBES: dict[str, Callable[[Any], str]] = {
    "rows whose index changes under CPU bfloat16 autocast": autocast,
    "graph breaks in a training step, dead-code replacement on": breaks_in_training,
    "graph breaks in eval": breaks_in_eval,
    "EMA moves per step of a checkpointed region": moves_when_checkpointed,
    "mask with a projection": masked_projection,
    "mask with heads, a codebook each": masked_heads,
    "mask with cosine similarity": masked_cosine,
    "mask on an image": masked_image,
    "loss of a fully masked batch": fully_masked,
    "codes in use 200 steps after 60 of 64 were dead": revival,
    "peak bytes per N*K with an entropy loss, forward and backward": entropy_memory,
}
