"""Averaged weights: what is validated and kept where `weight_ema` is set."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's parameters.

    After step t (counted from 1)

        average = d * average + (1 - d) * weight,    d = min(decay, t / (t + 9))

    so that early on, the memory is as long as the training and the initial weights are forgotten.
    Buffers are never averaged: the model's own are in use with either set of weights. A codebook
    that learns by moving averages is one, and so are its counts, and a mean of two codebooks in
    which codes have been replaced fits neither.

    Args:
        model: whose parameters are averaged.
        decay: d, in [0, 1).

    Attributes:
        values: the averages, by parameter name.
    """

    values: dict[str, Tensor]

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after a step, counted from 1."""
        share = 1 - min(self.decay, step / (step + 9))
        for name, parameter in self.model.named_parameters():
            self.values[name].lerp_(parameter, share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; afterwards its own, bit for bit."""
        own = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self._set(self.values)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(values[name])
