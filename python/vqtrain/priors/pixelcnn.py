"""Gated PixelCNN (van den Oord et al. 2016, arXiv 1606.05328) over grids of one to three axes.

One stack of features per axis. Stack k of a position sees the positions whose indices equal its
own on axes before k, come earlier on axis k, and are anything on axes after k. For pictures, stack
0 is the paper's vertical stack (the rows above, at full width) and stack 1 its horizontal one
(this row, to the left); video adds a stack of earlier frames before them, and sound has one stack.
Each stack is told what the one before it sees by a 1x1 convolution, so that the last one sees
every earlier position in raster order: no blind spot. A single masked stack cannot see the upper
right.

Causality comes from padding and cropping, not from zeroed weights. A layer with mask A excludes
the current index on axis k (the first layer), one with mask B includes it (all others, whose input
is already causal).

Run `python -m vqtrain.train_prior RUN` to train one on extracted codes.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtrain.models.spatial import CONV, over_space
from vqtrain.models.tokenizer import Codes
from vqtrain.priors.conditioning import UpperLevels
from vqtrain.priors.pixelcnn_cache import PixelCNNCache
from vqtrain.priors.prior import CodeSpace, Prior


@dataclass(frozen=True, kw_only=True)
class PixelCNNConfig:
    """Size of a gated PixelCNN.

    Args:
        width: channels of each stack.
        layers: gated layers, the first with mask A.
        first_kernel: kernel size of the first layer, odd, at least 3.
        kernel: kernel size of the others, odd.
        dropout: dropout on the gated activations.
        label_dropout: share of the labels that training hides, for guidance.
    """

    width: int = 32
    layers: int = 4
    first_kernel: int = 5
    kernel: int = 3
    dropout: float = 0.2
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")
        if self.first_kernel % 2 == 0 or self.first_kernel < 3:
            raise ValueError(f"first_kernel must be odd and at least 3, got {self.first_kernel}")


class CausalConv(nn.Module):
    """The convolution of stack `axis`: its outputs see `past` indices back on that axis.

    Args:
        width: input channels; there are twice as many outputs.
        ndim: axes of the grid.
        axis: k, the one that is causal. Axes before it are not looked along, axes after it at the
            full kernel.
        kernel: size of the kernel on the axes after k.
        includes_own: mask B, which sees the index itself, or mask A, which does not.
    """

    def __init__(
        self, width: int, *, ndim: int, axis: int, kernel: int, includes_own: bool
    ) -> None:
        super().__init__()
        self.axis = axis
        self.reach = reach = kernel // 2
        self.slabs = reach + includes_own  # how many indices on axis k are seen
        after = ndim - axis - 1
        seen: Any = (*[1] * axis, self.slabs, *[kernel] * after)
        self.conv = CONV[ndim](width, 2 * width, seen)
        # F.pad counts from the last axis.
        self.padding = (*[reach, reach] * after, reach, 0, *[0, 0] * axis)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[2 + self.axis]
        # Under mask A the convolution yields one index too many, the one that sees the last.
        result: Tensor = self.conv(F.pad(x, self.padding)).narrow(2 + self.axis, 0, length)
        return result


class GatedLayer(nn.Module):
    """One layer of all stacks: tanh(a + label) * sigmoid(b + label), equation 2 of the paper.

    Args:
        config: sizes.
        space: of the prior.
        first: whether it is the first layer, with mask A.
    """

    def __init__(self, config: PixelCNNConfig, space: CodeSpace, *, first: bool) -> None:
        super().__init__()
        width, ndim = config.width, len(space.grid)
        kernel = config.first_kernel if first else config.kernel
        self.residual = not first  # under mask A the input is the answer: it must not be added
        self.stacks = nn.ModuleList(
            CausalConv(width, ndim=ndim, axis=axis, kernel=kernel, includes_own=not first)
            for axis in range(ndim)
        )
        self.links = nn.ModuleList(CONV[ndim](2 * width, 2 * width, 1) for _ in range(ndim - 1))
        self.output = CONV[ndim](width, width, 1)
        self.label = nn.Embedding(space.num_labels + 1, 2 * width * ndim)
        self.upper = CONV[ndim](width, 2 * width * ndim, 1) if space.upper else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, stacks: tuple[Tensor, ...], labels: Tensor, upper: Tensor | None
    ) -> tuple[Tensor, ...]:
        told = over_space(self.label(labels), len(stacks))
        if self.upper is not None:
            told = told + self.upper(upper)
        gated: list[Tensor] = []
        seen: Tensor | None = None
        for axis, (x, given) in enumerate(zip(stacks, told.chunk(len(stacks), 1), strict=True)):
            own = self.stacks[axis](x)
            seen = own if seen is None else own + self.links[axis - 1](seen)
            gated.append(self.dropout(gate(seen + given)))
        last = self.output(gated.pop())
        return *gated, last + stacks[-1] if self.residual else last


class GatedPixelCNN(Prior):
    """p(z | label, upper) = prod over t of p(z_t | z_<t, label, upper), t in raster order.

    Args:
        config: sizes.
        space: the grid, of one to three axes, and what the model is told.
    """

    config_type = PixelCNNConfig

    def __init__(self, config: PixelCNNConfig, space: CodeSpace) -> None:
        super().__init__(config, space)
        conv = CONV[len(space.grid)]
        self.embedding = nn.Embedding(space.num_embeddings, config.width)
        self.upper = UpperLevels(space, config.width) if space.upper else None
        self.layers = nn.ModuleList(
            GatedLayer(config, space, first=not i) for i in range(config.layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            conv(config.width, config.width, 1),
            nn.ReLU(),
            conv(config.width, space.num_embeddings, 1),
        )

    def forward(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """Logits of every position given all earlier ones.

        Args:
            codes: `(B, *grid)` integer, in `0 .. K - 1`.
            labels: `(B,)` int64; `space.null_label` says nothing.
            upper: codes of every level above, top first.

        Returns:
            `(B, K, *grid)` unnormalised log probabilities.

        Raises:
            ValueError: if `codes` or `upper` are of other grids.
        """
        self.space.check(codes, upper)
        logits: Tensor = self.head(self._features(codes, labels, self.told_by(upper)))
        return logits

    def logits_at(
        self, codes: Tensor, labels: Tensor, upper: Codes = (), *, position: int
    ) -> Tensor:
        grid, told = self.space.grid, self.told_by(upper)
        rows = position * grid[0] // self.space.positions + 1  # those after cannot matter
        if told is not None:
            told = told[:, :, :rows]
        here = self._features(codes[:, :rows], labels, told).flatten(2)[:, :, position]
        logits: Tensor = self.head(over_space(here, len(grid)))
        return logits.flatten(1)

    @torch.no_grad()
    def init_cache(self, labels: Tensor, upper: Codes = ()) -> PixelCNNCache:
        return PixelCNNCache(self, labels, upper)

    @torch.no_grad()
    def step(self, cache: PixelCNNCache, code: Tensor | None, position: int) -> Tensor:
        return cache.step(code, position)

    def told_by(self, upper: Codes) -> Tensor | None:
        """`(B, width, *grid)` of the levels above; None without any."""
        return None if self.upper is None else self.upper(upper)

    def _features(self, codes: Tensor, labels: Tensor, upper: Tensor | None) -> Tensor:
        """`(B, width, *grid)` of the last stack, of the grid or of its first rows."""
        stacks = (self.embedding(codes.long()).movedim(-1, 1),) * len(self.space.grid)
        for layer in self.layers:
            stacks = layer(stacks, labels, upper)
        return stacks[-1]


def gate(x: Tensor) -> Tensor:
    """`(B, 2 W, ...)` to `(B, W, ...)`: tanh of the first half times sigmoid of the second."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()
