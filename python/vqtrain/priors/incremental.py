"""Causal layers that compute a whole grid at once, or one position at a time from a memory.

Both are one `forward`: without a `Step` it takes `(B, T, C)`, T being all positions in raster
order; with one it takes the `(B, 1, C)` of that position, and finds what earlier positions left
behind in the step's memory. A network of such layers is written once and serves training and
sampling. Buffers are allocated once, at full size, and addressed by Python integers, so that the
loop never waits for the device and can be captured in a CUDA graph.
"""

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtrain.models.tokenizer import Size

Memory = dict[nn.Module, Tensor]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Step(NamedTuple):
    """One position that is being computed.

    Attributes:
        position: of the grid, in raster order; each is visited once, in order.
        memory: what `remember` made, updated in place by the layers.
    """

    position: int
    memory: Memory


class Incremental(nn.Module):
    """A layer whose output at a position depends on earlier positions, hence has a memory."""

    def empty(self, batch: int, like: Tensor) -> Tensor:
        """The memory before position 0, with dtype and device of `like`."""
        raise NotImplementedError


def remember(network: nn.Module, batch: int, like: Tensor) -> Memory:
    """An empty memory of every incremental layer inside `network`."""
    return {
        layer: layer.empty(batch, like)
        for layer in network.modules()
        if isinstance(layer, Incremental)
    }


class Pointwise(nn.Linear):
    """A linear map at each position: the convolution of kernel 1, which needs no memory."""

    def forward(self, input: Tensor, step: Step | None = None) -> Tensor:
        return super().forward(input)


class RasterConv(Incremental):
    """n-D convolution over the earlier positions of a window, and the position itself.

    The window reaches `kernel // 2` in every direction. Of its positions, those that are not later
    in raster order are a prefix of it, so the weights are a prefix too and none is masked: masked
    convolution (van den Oord et al. 2016, arXiv 1601.06759) without the zeros.

    Args:
        grid: lengths of the axes.
        inputs: channels in.
        outputs: channels out.
        kernel: size of the window on every axis, odd.
        strict: leave the position itself out. In steps such a layer is given the features of the
            position before, and ignores what it is given at position 0.
    """

    window: Tensor

    def __init__(
        self, grid: Size, inputs: int, outputs: int, kernel: int, *, strict: bool = False
    ) -> None:
        super().__init__()
        self.grid, self.inputs, self.strict, self.reach = grid, inputs, strict, kernel // 2
        # Only the first axis can be cut without losing an earlier position.
        self.kernel = (self.reach + 1,) + (kernel,) * (len(grid) - 1)
        taps = (kernel ** len(grid) + 1) // 2 - strict
        self.weight = nn.Parameter(torch.empty(outputs, taps, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_uniform_(self.weight.flatten(1), nonlinearity="linear")
        self.register_buffer("window", _windows(grid, self.kernel, taps), persistent=False)

    def empty(self, batch: int, like: Tensor) -> Tensor:
        """Features of every position, and a zero that stands for all outside the grid."""
        return like.new_zeros(batch, math.prod(self.grid) + 1, self.inputs)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        if step is not None:
            features, given = step.memory[self], step.position - self.strict
            if given >= 0:
                features[:, given] = x[:, 0]
            seen = features.index_select(1, self.window[step.position]).flatten(1)
            return F.linear(seen, self.weight.flatten(1), self.bias)[:, None]
        rest = math.prod(self.kernel) - self.weight.shape[1]
        kernel = F.pad(self.weight.transpose(1, 2), (0, rest)).unflatten(2, self.kernel)
        sides = (self.reach, self.reach) * (len(self.grid) - 1) + (self.reach, 0)
        padded = F.pad(x.transpose(1, 2).unflatten(2, self.grid), sides)
        return _CONV[len(self.grid)](padded, kernel, self.bias).flatten(2).transpose(1, 2)


class Attention(Incremental):
    """Multi-head attention without weights of its own: queries, keys and values to mixtures.

    Args:
        length: T, positions.
        width: channels of queries, keys and values, split over the heads.
        heads: number of heads.
        causal: whether a position attends to none after it; otherwise it attends to all, and
            cannot be computed in steps.
    """

    def __init__(self, length: int, width: int, heads: int, *, causal: bool = True) -> None:
        super().__init__()
        self.length, self.width, self.heads, self.causal = length, width, heads, causal

    def empty(self, batch: int, like: Tensor) -> Tensor:
        """Keys and values of every position."""
        return like.new_zeros(2, batch, self.heads, self.length, self.width // self.heads)

    def split(self, x: Tensor) -> Tensor:
        """`(B, t, width)` to `(B, heads, t, width / heads)`."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, step: Step | None = None) -> Tensor:
        """Split queries, keys and values to `(B, t, width)`."""
        if step is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            keys, values = step.memory[self]
            here, end = slice(step.position, step.position + 1), step.position + 1
            keys[:, :, here], values[:, :, here] = k, v
            mixed = F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end])
        return mixed.transpose(1, 2).flatten(2)


def _windows(grid: Size, kernel: Size, taps: int) -> Tensor:
    """`(T, taps)` int64: the positions that each position sees, T for those outside the grid."""
    first, *others = kernel
    ranges = [range(1 - first, 1), *(range(-(k // 2), k // 2 + 1) for k in others)]
    offsets = torch.tensor(list(itertools.product(*ranges)))[:taps]
    seen = coordinates(grid)[:, None] + offsets
    inside = ((seen >= 0) & (seen < torch.tensor(grid))).all(-1)
    strides = torch.tensor([math.prod(grid[axis + 1 :]) for axis in range(len(grid))])
    return torch.where(inside, (seen * strides).sum(-1), math.prod(grid))


def coordinates(grid: Size) -> Tensor:
    """`(T, axes)` int64 coordinates of every position, in raster order."""
    return torch.tensor(list(itertools.product(*map(range, grid))))
