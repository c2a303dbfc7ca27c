"""VQ-VAE-2 (Razavi, van den Oord and Vinyals 2019, arXiv 1906.00446), with any number of levels.

Encoders go up, each on the features of the one below. Codes are chosen from the top down: the
vectors of a level are made of its features and of what a decoder says of all levels above, so
that a level needs to say only what those did not. The last decoder sees the codes of all levels.
Upper levels are brought to a finer grid by repetition, where the paper learns a transposed
convolution; the decoder's first convolution takes over that part.

    vqk train tokenizer shapes-vqvae2 --out runs/try --tokenizer.steps 50
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import vqkernels as vq
from vqtrain.models.codebook import CodebookConfig
from vqtrain.models.dilated import make_decoder
from vqtrain.models.likelihood import LikelihoodConfig
from vqtrain.models.spatial import CONV, resize, shrunk
from vqtrain.models.tokenizer import Codes, Signal, Size, Tokenizer, TokenizerOutput
from vqtrain.models.trunk import Decoder, Encoder, TrunkConfig


@dataclass(frozen=True, kw_only=True)
class VQVAE2Config(LikelihoodConfig, CodebookConfig, TrunkConfig):
    """Size of the tokenizer; levels are listed from the top, the coarsest one, to the bottom.

    Args:
        downsamplings: for each level, strided convolutions from the level below, or from the
            signal for the last one. The paper's 32x32 and 64x64 codes of 256x256 images: 1, 2.
        num_embeddings: K of each level (the paper: 512, 512).
    """

    downsamplings: tuple[int, ...] = (1, 1)
    num_embeddings: tuple[int, ...] = (32, 32)

    def __post_init__(self) -> None:
        for name in ("downsamplings", "num_embeddings"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.downsamplings:
            raise ValueError("downsamplings must name at least one level, got none")
        if len(self.num_embeddings) != len(self.downsamplings):
            raise ValueError(
                f"num_embeddings must name {len(self.downsamplings)} levels, as downsamplings "
                f"does, got {self.num_embeddings}"
            )


class VQVAE2(Tokenizer):
    """A signal to grids of codes, top level first, and back.

    Args:
        config: sizes.
        signal: what it is a tokenizer of; every length a multiple of `2 ** sum(downsamplings)`.

    Raises:
        ValueError: if the signal cannot be halved that often.
    """

    config_type = VQVAE2Config

    def __init__(self, config: VQVAE2Config, signal: Signal) -> None:
        super().__init__(config, signal)
        ndim, hidden, width = signal.ndim, config.hidden, config.embedding_dim
        count = len(config.downsamplings)
        self.codebook_sizes = config.num_embeddings
        self.code_grids = _grids(signal.size, config.downsamplings)
        self.likelihood = config.make_likelihood(signal.levels)
        # All lists are in the order of the codes, top level first.
        self.encoders = nn.ModuleList(
            Encoder(config, ndim, hidden if i < count - 1 else signal.channels, hidden, strided)
            for i, strided in enumerate(config.downsamplings)
        )
        self.to_vectors = nn.ModuleList(
            CONV[ndim](2 * hidden if i else hidden, width, 1) for i in range(count)
        )
        self.quantizers = nn.ModuleList(config.make_quantizer(k) for k in config.num_embeddings)
        # Of levels 0 .. i to the grid of level i + 1. It must not know the label: codes are a
        # function of the signal alone.
        self.told = nn.ModuleList(
            Decoder(config, ndim, (i + 1) * width, hidden, None, config.downsamplings[i])
            for i in range(count - 1)
        )
        self.decoder = make_decoder(
            config,
            ndim,
            count * width,
            signal.channels * self.likelihood.num_parameters,
            signal.num_labels,
            config.downsamplings[-1],
        )

    def forward(self, x: Tensor, labels: Tensor) -> TokenizerOutput:
        features = self._features(x)
        chosen: list[Tensor] = []
        codes, losses, scalars = [], [], {}
        for level, quantizer in enumerate(self._quantizers):
            output = quantizer(self._vectors(features[level], chosen))
            chosen.append(output.quantized)
            codes.append(output.indices)
            losses.append(output.loss)
            scalars[f"perplexity_{level}"] = output.usage.perplexity
        cost = self.likelihood.cost(self.decoder(_joined(chosen), labels), x)
        return TokenizerOutput(
            loss=cost.mean() / self.signal.dims + torch.stack(losses).sum(),
            nll=cost if self.likelihood.has_likelihood else None,
            codes=tuple(codes),
            scalars=scalars,
        )

    def encode(self, x: Tensor) -> Codes:
        features = self._features(x)
        chosen: list[Tensor] = []
        codes: list[Tensor] = []
        for level, quantizer in enumerate(self._quantizers):
            codes.append(quantizer.encode(self._vectors(features[level], chosen)))
            chosen.append(quantizer.decode(codes[-1]))
        return tuple(codes)

    def vectors(self, codes: Codes) -> tuple[Tensor, ...]:
        levels = zip(self._quantizers, codes, strict=True)
        return tuple(quantizer.decode(indices) for quantizer, indices in levels)

    def decode_vectors(self, vectors: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.decoder(_joined(vectors), labels)

    @property
    def _quantizers(self) -> list[vq.nn.VectorQuantizer]:
        return [q for q in self.quantizers if isinstance(q, vq.nn.VectorQuantizer)]

    def _features(self, x: Tensor) -> list[Tensor]:
        """`(B, hidden, *grid)` of every level, top first."""
        h = self.signal.scaled(x, next(self.encoders.parameters()).dtype)
        features = []
        for encoder in reversed(self.encoders):
            h = encoder(h)
            features.append(h)
        return features[::-1]

    def _vectors(self, features: Tensor, above: list[Tensor]) -> Tensor:
        """What a level quantizes: its features, told of the codes' vectors of those above."""
        level = len(above)
        if level:
            features = torch.cat([features, self.told[level - 1](_joined(above))], dim=1)
        return self.to_vectors[level](features)


def _joined(vectors: Sequence[Tensor]) -> Tensor:
    """Vectors of several levels on the grid of the last, the finest one, side by side."""
    return torch.cat([resize(v, vectors[-1].shape[2:]) for v in vectors], dim=1)


def _grids(size: Size, downsamplings: tuple[int, ...]) -> tuple[Size, ...]:
    grids: list[Size] = []
    for halvings in reversed(downsamplings):
        grids.insert(0, shrunk(grids[0] if grids else size, halvings))
    return tuple(grids)
