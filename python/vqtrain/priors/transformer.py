"""A transformer over a grid of codes: what `CodeGPT` and `MaskedPrior` share.

Pre-norm blocks (Xiong et al. 2020, arXiv 2002.04745). A token is a code, or K, which stands for a
code that is not there: the one before the first for `CodeGPT`, the masked one for `MaskedPrior`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtrain.models.tokenizer import Codes, Size
from vqtrain.priors.conditioning import Condition
from vqtrain.priors.incremental import Attention, Step, coordinates
from vqtrain.priors.prior import CodeSpace

ROPE_BASE = 100.0  # of grids, whose axes are short (Heo et al. 2024, arXiv 2403.13298)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Size of a transformer over codes.

    Args:
        width: channels of the residual stream.
        layers: blocks of attention and MLP.
        heads: attention heads; a divisor of the width.
        mlp_ratio: hidden channels of an MLP, in widths.
        positions: how a position is told: `learned`, a vector for each coordinate of each axis,
            added to the input; or `rope`, rotations of queries and keys, the channels of a head
            being shared out to the axes.
        dropout: dropout on the input and on what attention and MLP add.
        label_dropout: share of labels that are hidden in training; guidance needs some.
        conditioning_blocks: residual blocks over the codes of each upper level.
    """

    width: int = 64
    layers: int = 3
    heads: int = 4
    mlp_ratio: int = 4
    positions: Literal["learned", "rope"] = "learned"
    dropout: float = 0.1
    label_dropout: float = 0.0
    conditioning_blocks: int = 2

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads {self.heads}, got {self.width}")


class Transformer(nn.Module):
    """Tokens `(B, T)` to logits `(B, T, K)`.

    Args:
        config: sizes.
        space: the grid, and what else is told.
        causal: whether a position sees no token after its own.
    """

    def __init__(self, config: TransformerConfig, space: CodeSpace, *, causal: bool) -> None:
        super().__init__()
        width, grid = config.width, space.grid
        self.token = nn.Embedding(space.num_embeddings + 1, width)
        self.told = Condition(space, width, config.conditioning_blocks)
        learned = config.positions == "learned"
        self.positions = LearnedPositions(grid, width) if learned else None
        blocks = [
            Block(config, Attention(space.positions, width, config.heads, causal=causal), grid)
            for _ in range(config.layers)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, space.num_embeddings)
        self.dropout = nn.Dropout(config.dropout)
        self.apply(_initialise)
        with torch.no_grad():  # the stream's variance does not grow with depth, as in GPT-2
            for block in blocks:
                block.attention_out.weight /= (2 * config.layers) ** 0.5
                block.mlp_out.weight /= (2 * config.layers) ** 0.5

    def condition(self, labels: Tensor, upper: Codes) -> Tensor:
        """Label, upper levels and position, added to the tokens: `(B, T or 1, width)`."""
        told: Tensor = self.told(labels, upper)
        return told if self.positions is None else told + self.positions()

    def forward(self, tokens: Tensor, condition: Tensor, step: Step | None = None) -> Tensor:
        """`(B, T)` tokens, or the `(B, 1)` of a step, with the condition at those positions."""
        x = self.dropout(self.token(tokens) + condition)
        for block in self.blocks:
            x = block(x, step)
        return self.head(self.norm(x))


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, config: TransformerConfig, attention: Attention, grid: Size) -> None:
        super().__init__()
        width = config.width
        self.attention = attention
        self.rotation = (
            Rotation(grid, width // config.heads) if config.positions == "rope" else None
        )
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = config.mlp_ratio * width
        self.mlp_in, self.mlp_out = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        q, k, v = map(self.attention.split, self.qkv(self.before_attention(x)).chunk(3, -1))
        if self.rotation is not None:
            q, k = self.rotation(q, step), self.rotation(k, step)
        x = x + self.dropout(self.attention_out(self.attention(q, k, v, step)))
        return x + self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.before_mlp(x)))))


class LearnedPositions(nn.Module):
    """`(T, width)`: a vector for each coordinate of each axis, added up."""

    index: Tensor

    def __init__(self, grid: Size, width: int) -> None:
        super().__init__()
        self.axes = nn.ModuleList(nn.Embedding(length, width) for length in grid)
        self.register_buffer("index", coordinates(grid).T, persistent=False)

    def forward(self) -> Tensor:
        vectors = [axis(index) for axis, index in zip(self.axes, self.index, strict=True)]
        return sum(vectors[1:], vectors[0])


class Rotation(nn.Module):
    """Axial rotary positions (Su et al. 2021, arXiv 2104.09864, for several axes).

    The pairs of channels of a head are shared out to the axes; those left over do not turn.

    Args:
        grid: lengths of the axes.
        channels: of a head; two for every axis at least.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: Size, channels: int) -> None:
        super().__init__()
        if channels % 2 or channels < 2 * len(grid):
            raise ValueError(
                f"width / heads must be even and at least {2 * len(grid)} for rope on a grid of "
                f"{len(grid)} axes, got {channels}"
            )
        each = channels // 2 // len(grid)
        speeds = ROPE_BASE ** -(torch.arange(each, dtype=torch.float64) / each)
        angles = (coordinates(grid)[:, :, None] * speeds).flatten(1)
        angles = F.pad(angles, (0, channels // 2 - angles.shape[1]))
        self.register_buffer("cos", angles.cos().to(torch.get_default_dtype()), persistent=False)
        self.register_buffer("sin", angles.sin().to(torch.get_default_dtype()), persistent=False)

    def forward(self, x: Tensor, step: Step | None = None) -> Tensor:
        """Rotates `(B, heads, t, channels)` by its positions, all of them or the step's."""
        at = slice(None) if step is None else slice(step.position, step.position + 1)
        a, b = x.chunk(2, -1)
        cos, sin = self.cos[at], self.sin[at]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _initialise(module: nn.Module) -> None:
    """Maps keep the variance of their input at any width (LeCun et al. 1998)."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
