"""The identity tokenizer: codes are the signal's own levels.

A prior over these codes is a model of pixels, whose bits are to be compared with those of codes
and reconstruction together.

    vqk run digits --tokenizer.kind identity
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from vqtrain.models.likelihood import Likelihood
from vqtrain.models.tokenizer import Codes, Signal, Tokenizer, TokenizerOutput


class Certain(Likelihood):
    """p(x = parameters) = 1; P = 1."""

    num_parameters = 1

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        level = self.mean(parameters)
        return torch.zeros_like(level).masked_fill(x != level, -torch.inf)

    def mean(self, parameters: Tensor) -> Tensor:
        return self.per_channel(parameters)[:, 0]

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        return self.mean(parameters).long()


class Identity(Tokenizer):
    """A signal as one grid of codes; channels are the grid's last axis if there are several.

    It has no weights and nothing to train.

    Args:
        signal: what it is a tokenizer of.

    Raises:
        ValueError: if the grid would have four axes.
    """

    def __init__(self, signal: Signal) -> None:
        super().__init__(None, signal)
        grid = signal.size if signal.channels == 1 else (*signal.size, signal.channels)
        if len(grid) > 3:
            raise ValueError(f"channels must be 1 for a signal of three axes, got {grid[-1]}")
        self.codebook_sizes = (signal.levels,)
        self.code_grids = (grid,)
        self.likelihood = Certain(signal.levels)

    def description(self) -> dict[str, Any]:
        return {"signal": asdict(self.signal)}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "Identity":
        return cls(Signal(**description["signal"]))

    def forward(self, x: Tensor, labels: Tensor) -> TokenizerOutput:
        codes = self.encode(x)
        nll = self.nll(x, labels, codes)
        return TokenizerOutput(nll.mean(), nll, codes, {})

    def encode(self, x: Tensor) -> Codes:
        self.signal.check(x)
        return ((x[:, 0] if self.signal.channels == 1 else x.movedim(1, -1)).long(),)

    def vectors(self, codes: Codes) -> tuple[Tensor, ...]:
        level = codes[0].float()
        return (level[:, None] if self.signal.channels == 1 else level.movedim(-1, 1),)

    def decode_vectors(self, vectors: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return vectors[0]
