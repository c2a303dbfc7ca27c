"""GPT over codes: a causal transformer on any grid (iGPT, Chen et al. 2020; LlamaGen,
Sun et al. 2024, arXiv 2406.06525).

The codes are read in raster order. Slot t holds code t - 1, is told position t, the label and the
upper levels at t, and gives the logits of code t; the first slot holds no code, only the class.
Sampling keeps keys and values of all positions in buffers of full length.

Run `python -m vqtrain.train_prior RUN --prior.kind gpt` to train one on extracted codes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.models.tokenizer import Codes
from vqtrain.priors.incremental import Memory, Step, remember
from vqtrain.priors.prior import CodeSpace, Prior
from vqtrain.priors.transformer import Transformer, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class GPTConfig(TransformerConfig):
    """Size of the prior; see `TransformerConfig`."""


class GPTCache(NamedTuple):
    """Keys and values so far, and what every position is told."""

    memory: Memory
    condition: Tensor


class CodeGPT(Prior):
    """p(z | label, upper) = prod over t of p(z_t | z_<t, label, upper), t in raster order.

    Args:
        config: sizes.
        space: the grid it models, and what it is told.
    """

    config_type = GPTConfig

    def __init__(self, config: GPTConfig, space: CodeSpace) -> None:
        super().__init__(config, space)
        self.start = space.num_embeddings
        self.network = Transformer(config, space, causal=True)

    def forward(self, codes: Tensor, labels: Tensor, upper: Codes = ()) -> Tensor:
        """Logits `(B, K, *grid)` of every position given all earlier ones."""
        self.space.check(codes, upper)
        before = codes.flatten(1)[:, :-1].long()
        tokens = F.pad(before, (1, 0), value=self.start)
        logits = self.network(tokens, self.network.condition(labels, upper))
        return logits.transpose(1, 2).unflatten(2, self.space.grid)

    def init_cache(self, labels: Tensor, upper: Codes = ()) -> GPTCache:
        """Keys and values of every layer, zero yet, for `len(labels)` grids."""
        condition = self.network.condition(labels, upper)
        condition = condition.expand(-1, self.space.positions, -1)
        return GPTCache(remember(self.network, len(labels), condition), condition)

    def step(self, cache: GPTCache, code: Tensor | None, position: int) -> Tensor:
        """Logits `(B, K)` of one position; see `Prior.step`."""
        condition = cache.condition[:, position : position + 1]
        if code is None:
            code = torch.full(condition.shape[:1], self.start, device=condition.device)
        return self.network(code[:, None], condition, Step(position, cache.memory))[:, 0]
