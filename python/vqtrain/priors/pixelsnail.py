"""PixelSNAIL (Chen et al. 2018, arXiv 1712.09763) over grids of codes, as VQ-VAE-2 uses it
(Razavi et al. 2019, arXiv 1906.00446).

Gated residual blocks of causal convolutions see what is near; after every few of them, causal
attention over (codes, features, coordinates) sees everything earlier. Without attention, as in
VQ-VAE-2's bottom prior, codes far up and to the side are seen late or not at all: then the upper
levels have to tell what is there.

Run `python -m vqtrain.train_prior RUN --prior.kind pixelsnail` to train one on extracted codes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtrain.models.tokenizer import Codes, Size
from vqtrain.priors.conditioning import Condition
from vqtrain.priors.incremental import (
    Attention,
    Incremental,
    Memory,
    Pointwise,
    RasterConv,
    Step,
    coordinates,
    remember,
)
from vqtrain.priors.prior import CodeSpace, Prior


@dataclass(frozen=True, kw_only=True)
class PixelSNAILConfig:
    """Size of the prior.

    Args:
        width: channels of the stream (VQ-VAE-2: 512).
        residual_width: channels inside a residual block (VQ-VAE-2: 2048 top, 1024 bottom).
        layers: gated residual blocks of causal convolutions (VQ-VAE-2: 20).
        first_kernel: window of the first convolution, which leaves the position itself out; odd.
        kernel: window of the others, odd (VQ-VAE-2: 5).
        attention_every: blocks before each attention; 0 has none (VQ-VAE-2: 5 top, 0 bottom).
        heads: attention heads; a divisor of the width (VQ-VAE-2: 8).
        output_layers: residual blocks of kernel 1 before the logits (VQ-VAE-2: 20 top).
        conditioning_blocks: residual blocks over the codes of each upper level (VQ-VAE-2: 20).
        dropout: dropout inside the residual blocks.
        label_dropout: share of labels that are hidden in training; guidance needs some.
    """

    width: int = 32
    residual_width: int = 32
    layers: int = 4
    first_kernel: int = 5
    kernel: int = 3
    attention_every: int = 2
    heads: int = 4
    output_layers: int = 1
    conditioning_blocks: int = 2
    dropout: float = 0.3
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")
        if self.first_kernel % 2 == 0 or self.first_kernel < 3:
            raise ValueError(f"first_kernel must be odd and at least 3, got {self.first_kernel}")
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads {self.heads}, got {self.width}")


class GatedResidual(nn.Module):
    """x + a * sigmoid(b), where (a, b) = conv(elu(conv(elu(x)) + beside)) + condition."""

    def __init__(self, config: PixelSNAILConfig, grid: Size, kernel: int) -> None:
        super().__init__()
        width, hidden = config.width, config.residual_width
        self.inner: nn.Module
        self.outer: Pointwise | RasterConv
        if kernel == 1:
            self.inner, self.outer = Pointwise(width, hidden), Pointwise(hidden, 2 * width)
        else:
            self.inner = RasterConv(grid, width, hidden, kernel)
            self.outer = RasterConv(grid, hidden, 2 * width, kernel)
        self.condition = nn.Linear(width, 2 * width)
        self.dropout = nn.Dropout(config.dropout)
        with torch.no_grad():
            self.outer.weight *= 0.1  # a deep stack starts near the identity, as in their code

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        step: Step | None = None,
        beside: Tensor | float = 0.0,
    ) -> Tensor:
        hidden = self.inner(F.elu(x), step) + beside
        hidden = self.outer(self.dropout(F.elu(hidden)), step)
        return x + F.glu(hidden + self.condition(condition), -1)


class CausalAttention(Incremental):
    """Attention from (features, coordinates) to (codes, features, coordinates) before them.

    A key tells the code of its own position, so a position attends to those strictly before it,
    and to a learned key that stands for none of them. Slot t of the keys is position t - 1.

    Args:
        config: sizes.
        grid: lengths of the axes.
    """

    where: Tensor

    def __init__(self, config: PixelSNAILConfig, grid: Size) -> None:
        super().__init__()
        width, axes = config.width, len(grid)
        where = 2 * (coordinates(grid) + 0.5) / torch.tensor(grid) - 1
        self.register_buffer("where", where, persistent=False)
        self.query = nn.Linear(width + axes, width)
        self.key_value = nn.Linear(2 * width + axes, 2 * width)
        self.nothing = nn.Parameter(torch.zeros(2 * width))
        self.attention = Attention(len(where), width, config.heads)
        self.beside = nn.Linear(width, config.residual_width)
        self.merge = GatedResidual(config, grid, kernel=1)

    def empty(self, batch: int, like: Tensor) -> Tensor:
        """Features of the position before, whose key waits for its code."""
        return like.new_zeros(batch, 1, self.key_value.out_features // 2)

    def forward(
        self, x: Tensor, codes: Tensor, condition: Tensor, step: Step | None = None
    ) -> Tensor:
        """Features `(B, T, width)` and embedded codes of the same positions; in a step, features
        `(B, 1, width)` of its position and the embedded code of the position before.
        """
        batch, nothing = len(x), self.nothing.expand(len(x), 1, -1)
        split = self.attention.split
        if step is None:
            where = self.where.expand(batch, -1, -1)
            content = torch.cat([codes, x, where], -1)[:, :-1]
            key_value = torch.cat([nothing, self.key_value(content)], 1)
        else:
            before = step.memory[self]
            where = self.where[step.position].expand(batch, 1, -1)
            if step.position == 0:
                key_value = nothing
            else:
                place = self.where[step.position - 1].expand(batch, 1, -1)
                key_value = self.key_value(torch.cat([codes, before, place], -1))
            before.copy_(x)
        query = self.query(torch.cat([x, where], -1))
        key, value = key_value.chunk(2, -1)
        mixed = self.attention(split(query), split(key), split(value), step)
        return self.merge(x, condition, step, beside=self.beside(F.elu(mixed)))


class PixelSNAILCache(NamedTuple):
    """What convolutions and attentions have seen so far, and what every position is told."""

    memory: Memory
    condition: Tensor


class PixelSNAIL(Prior):
    """p(z | label, upper) = prod over t of p(z_t | z_<t, label, upper), t in raster order.

    Args:
        config: sizes.
        space: the grid it models, and what it is told.
    """

    config_type = PixelSNAILConfig

    def __init__(self, config: PixelSNAILConfig, space: CodeSpace) -> None:
        super().__init__(config, space)
        width, grid = config.width, space.grid
        self.code = nn.Embedding(space.num_embeddings, width)
        self.condition = Condition(space, width, config.conditioning_blocks)
        self.first = RasterConv(grid, width, width, config.first_kernel, strict=True)
        self.layers = nn.ModuleList()
        for layer in range(1, config.layers + 1):
            self.layers.append(GatedResidual(config, grid, config.kernel))
            if config.attention_every and layer % config.attention_every == 0:
                self.layers.append(CausalAttention(config, grid))
        self.output = nn.ModuleList(
            GatedResidual(config, grid, kernel=1) for _ in range(config.output_layers)
        )
        self.head = nn.Linear(width, space.num_embeddings)

    def forward(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """Logits `(B, K, *grid)` of every position given all earlier ones."""
        self.space.check(codes, upper)
        embedded = self.code(codes.flatten(1).long())
        logits = self._network(embedded, self.condition(labels, upper))
        return logits.transpose(1, 2).unflatten(2, self.space.grid)

    def init_cache(self, labels: Tensor, upper: Codes = ()) -> PixelSNAILCache:
        """Features, keys and values of every layer, zero yet, for `len(labels)` grids."""
        condition = self.condition(labels, upper)
        condition = condition.expand(-1, self.space.positions, -1)
        return PixelSNAILCache(remember(self, len(labels), condition), condition)

    def step(self, cache: PixelSNAILCache, code: Tensor | None, position: int) -> Tensor:
        """Logits `(B, K)` of one position; see `Prior.step`."""
        condition = cache.condition[:, position : position + 1]
        before = torch.zeros_like(condition) if code is None else self.code(code[:, None])
        return self._network(before, condition, Step(position, cache.memory))[:, 0]

    def _network(self, codes: Tensor, condition: Tensor, step: Step | None = None) -> Tensor:
        """Embedded codes to logits, all positions or, from the code before it, the step's."""
        x = self.first(codes, step)
        for layer in self.layers:
            if isinstance(layer, CausalAttention):
                x = layer(x, codes, condition, step)
            else:
                x = layer(x, condition, step)
        for layer in self.output:
            x = layer(x, condition, step)
        return self.head(F.elu(x))
