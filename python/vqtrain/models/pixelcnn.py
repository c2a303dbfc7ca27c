"""Gated PixelCNN (van den Oord et al. 2016, arXiv 1606.05328) over grids of codes.

Two stacks per layer. The vertical stack sees the rows above, at full width; the horizontal stack
sees the current row to the left and receives the vertical one through a 1x1 convolution. Together
they see every earlier position in raster order: no blind spot. A single masked stack cannot see
the upper right.

Causality comes from padding and cropping, not from zeroed weights. A layer with mask A excludes
the current position (the first layer), one with mask B includes it (all others, whose input is
already causal).

Run `python -m vqtrain.train_prior RUN` to train one on extracted codes.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PixelCNNConfig:
    """Size of the prior.

    Args:
        width: channels of each stack.
        layers: gated layers, the first with mask A.
        first_kernel: kernel size of the first layer, odd.
        kernel: kernel size of the others, odd.
        dropout: dropout on the gated activations.
    """

    width: int = 32
    layers: int = 4
    first_kernel: int = 5
    kernel: int = 3
    dropout: float = 0.2


class GatedLayer(nn.Module):
    """One layer of both stacks: tanh(a + label) * sigmoid(b + label), equation 2 of the paper."""

    def __init__(
        self, width: int, kernel: int, mask: Literal["A", "B"], num_labels: int, dropout: float
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        self.reach = kernel // 2
        self.residual = mask == "B"  # under mask A the input is the answer: it must not be added
        own = int(mask == "B")  # whether the current row, or position, is seen
        self.vertical = nn.Conv2d(width, 2 * width, (self.reach + own, kernel))
        self.horizontal = nn.Conv2d(width, 2 * width, (1, self.reach + own))
        self.vertical_to_horizontal = nn.Conv2d(2 * width, 2 * width, 1)
        self.output = nn.Conv2d(width, width, 1)
        self.label = nn.Embedding(num_labels, 4 * width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, vertical: Tensor, horizontal: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        height, width = vertical.shape[2:]
        label_v, label_h = self.label(labels)[:, :, None, None].chunk(2, dim=1)
        # Row i of the result sees rows i - reach .. i (mask B) or .. i - 1 (mask A) of the input.
        # Under mask A the convolution yields one row too many, the one that sees the last row.
        above = F.pad(vertical, (self.reach, self.reach, self.reach, 0))
        v = self.vertical(above)[:, :, :height]
        left = F.pad(horizontal, (self.reach, 0))
        h = self.horizontal(left)[:, :, :, :width] + self.vertical_to_horizontal(v)
        h = self.output(self.dropout(_gate(h + label_h)))
        return self.dropout(_gate(v + label_v)), h + horizontal if self.residual else h


class GatedPixelCNN(nn.Module):
    """p(z | label) = prod over t of p(z_t | z_<t, label), t in raster order.

    Args:
        config: sizes.
        num_embeddings: K, the number of different codes.
        num_labels: labels it can be told.
    """

    def __init__(self, config: PixelCNNConfig, *, num_embeddings: int, num_labels: int) -> None:
        super().__init__()
        self.config, self.num_embeddings, self.num_labels = config, num_embeddings, num_labels
        self.embedding = nn.Embedding(num_embeddings, config.width)
        self.layers = nn.ModuleList(
            GatedLayer(
                config.width,
                config.kernel if i else config.first_kernel,
                "B" if i else "A",
                num_labels,
                config.dropout,
            )
            for i in range(config.layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(config.width, config.width, 1),
            nn.ReLU(),
            nn.Conv2d(config.width, num_embeddings, 1),
        )

    def description(self) -> dict[str, Any]:
        """Everything that rebuilds this module apart from its weights, as JSON types."""
        return {
            "config": asdict(self.config),
            "num_embeddings": self.num_embeddings,
            "num_labels": self.num_labels,
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "GatedPixelCNN":
        """Inverse of `description`, with fresh weights."""
        sizes = {key: description[key] for key in ("num_embeddings", "num_labels")}
        return cls(PixelCNNConfig(**description["config"]), **sizes)

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Logits of every position given all earlier ones.

        Args:
            codes: `(B, h, w)` integer, in `0 .. K - 1`; any h and w.
            labels: `(B,)` int64.

        Returns:
            `(B, K, h, w)` unnormalised log probabilities.

        Raises:
            ValueError: if `codes` is not three-dimensional.
        """
        if codes.ndim != 3:
            raise ValueError(f"codes must have shape (B, h, w), got {tuple(codes.shape)}")
        vertical = horizontal = self.embedding(codes.long()).permute(0, 3, 1, 2)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, labels)
        return self.head(horizontal)

    def nll(self, codes: Tensor, labels: Tensor) -> Tensor:
        """`(B,)` nats per grid, -log p(z | label)."""
        logits = self(codes, labels)
        return F.cross_entropy(logits, codes.long(), reduction="none").flatten(1).sum(1)

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        grid: tuple[int, int],
        generator: torch.Generator,
        temperature: float = 1.0,
    ) -> Tensor:
        """Ancestral sampling in raster order.

        Every code is drawn by inverse CDF from a uniform number that belongs to its position, all
        drawn beforehand, so that any other sampler that consumes the same numbers must give the
        same codes.

        Args:
            labels: `(B,)` int64, on the model's device.
            grid: (h, w).
            generator: CPU generator.
            temperature: divides the logits; 1 samples the model.

        Returns:
            `(B, h, w)` int64 codes on the labels' device.

        Raises:
            ValueError: if `temperature` is not positive.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        height, width = grid
        shape = (len(labels), height, width)
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64).to(labels.device)
        codes = torch.zeros(shape, dtype=torch.int64, device=labels.device)
        for i in range(height):
            for j in range(width):
                # Rows below i cannot matter, so they are not computed.
                logits = self(codes[:, : i + 1], labels)[:, :, i, j]
                cdf = (logits.double() / temperature).softmax(1).cumsum(1)
                drawn = (cdf <= uniforms[:, i, j, None]).sum(1)
                codes[:, i, j] = drawn.clamp(max=self.num_embeddings - 1)
        return codes


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()
