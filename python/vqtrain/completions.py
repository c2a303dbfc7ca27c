"""Held-out items of which the priors are told one half and draw the other.

Half of the codes of every level are those of the item; the others are drawn after them, top level
first. A prior that draws in raster order can be told the first half: upper rows, earlier frames or
the first seconds. One that sees in all directions can as well be told the left half.

Tensors, for each half that is told: `told_first`, `(*size)`, true where the item is known, and
`completed_first`, `(n, WAYS, C, *size)`, decoder means of so many ways to go on; beside them
`held_out`, `(n, C, *size)`, the items as they are.
"""

from pathlib import Path

import torch
from torch import Tensor

from vqtrain import pictures
from vqtrain.data.dataset import Split
from vqtrain.models.tokenizer import Signal
from vqtrain.pipeline import GenerativePipeline
from vqtrain.priors.sampling import Sampler

WAYS = 3  # completions of an item, of the same half


def complete_halves(
    pipeline: GenerativePipeline, items: Split, generator: torch.Generator, sampler: Sampler
) -> dict[str, Tensor]:
    """Draws the tensors that the module describes.

    Args:
        pipeline: tokenizer and priors.
        items: held-out ones, on the pipeline's device.
        generator: CPU generator.
        sampler: how codes are drawn.
    """
    tensors = {"held_out": items.x}
    repeated = (items.x.repeat_interleave(WAYS, 0), items.labels.repeat_interleave(WAYS))
    for half, mask in _halves(pipeline).items():
        completed = pipeline.complete(*repeated, mask, generator, sampler)
        tensors[f"told_{half}"] = mask
        tensors[f"completed_{half}"] = completed.means.unflatten(0, (-1, WAYS))
    return tensors


def completion_sheet(path: Path, tensors: dict[str, Tensor], signal: Signal) -> None:
    """Each item above what was told of it and what was drawn.

    Args:
        path: PNG to write.
        tensors: of `complete_halves`.
        signal: what they are items of.
    """
    items = tensors["held_out"]
    if signal.ndim == 1:
        nothing = (signal.levels - 1) // 2  # silence
    else:
        nothing = 0 if signal.channels == 1 else signal.levels - 1  # white: grey levels are ink
    panels = []
    for half in ("first", "left"):
        if f"told_{half}" not in tensors:
            continue
        told = items.masked_fill(~tensors[f"told_{half}"], nothing)
        ways = tensors[f"completed_{half}"].unbind(1)
        rows = torch.stack([items.float(), told.float(), *ways])
        names = ["held out", "told", *["completed"] * len(ways)]
        where = "upper" if half == "first" and signal.ndim == 2 else half
        panels.append(pictures.Panel(f"Told the {where} half, uncurated", names, rows))
    pictures.sheet(path, panels, signal.levels)


def _halves(pipeline: GenerativePipeline) -> dict[str, Tensor]:
    """`(*size)` masks of what can be told."""
    size = pipeline.tokenizer.signal.size
    axes = {"first": 0, "left": len(size) - 1}
    if len(size) == 1 or not all(prior.bidirectional for prior in pipeline.priors):
        del axes["left"]
    masks = {}
    for half, axis in axes.items():
        index = torch.arange(size[axis]) < size[axis] // 2
        masks[half] = index.view([-1 if a == axis else 1 for a in range(len(size))]).expand(size)
    return masks
