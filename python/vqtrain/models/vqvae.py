"""VQ-VAE (van den Oord, Vinyals and Kavukcuoglu 2017, arXiv 1711.00937), sized by its config.

An encoder gives a grid of vectors, each becomes its nearest code, and a decoder gives the
parameters of a likelihood: reconstruction is measured in bits. The trunk is in
`vqtrain.models.trunk`, the quantizer in `vqkernels.nn`.

    vqk train tokenizer digits --out runs/try --tokenizer.steps 200
"""

from dataclasses import dataclass

from torch import Tensor

import vqkernels as vq
from vqtrain.models.codebook import CodebookConfig
from vqtrain.models.dilated import make_decoder
from vqtrain.models.likelihood import LikelihoodConfig
from vqtrain.models.spatial import shrunk
from vqtrain.models.tokenizer import Codes, Signal, Tokenizer, TokenizerOutput
from vqtrain.models.trunk import Encoder, TrunkConfig


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(LikelihoodConfig, CodebookConfig, TrunkConfig):
    """Size of the tokenizer.

    Args:
        downsamplings: strided convolutions; each halves every axis.
        num_embeddings: K, codes in the codebook.
        code_maps: codes per position, out of one codebook; more than one add an axis of that
            length to the grid (the paper's 8x8x10 latents of 32x32 images: 10).
    """

    downsamplings: int = 1
    num_embeddings: int = 8
    code_maps: int = 1


class VQVAE(Tokenizer):
    """A signal to one grid of codes and back.

    Args:
        config: sizes.
        signal: what it is a tokenizer of; every length a multiple of `2 ** downsamplings`.

    Raises:
        ValueError: if the signal cannot be halved that often, or the grid has four axes.
    """

    config_type = VQVAEConfig

    def __init__(self, config: VQVAEConfig, signal: Signal) -> None:
        super().__init__(config, signal)
        grid = shrunk(signal.size, config.downsamplings)
        width = config.embedding_dim * config.code_maps
        self.codebook_sizes = (config.num_embeddings,)
        self.code_grids = (_with_maps(grid, config.code_maps),)
        self.likelihood = config.make_likelihood(signal.levels)
        self.encoder = Encoder(config, signal.ndim, signal.channels, width, config.downsamplings)
        self.quantizer = _make_quantizer(config)
        self.decoder = make_decoder(
            config,
            signal.ndim,
            width,
            signal.channels * self.likelihood.num_parameters,
            signal.num_labels,
            config.downsamplings,
        )

    def forward(self, x: Tensor, labels: Tensor) -> TokenizerOutput:
        quantized, codes, quantizer_loss, usage = self.quantizer(self._vectors(x))
        cost = self.likelihood.cost(self.decoder(quantized, labels), x)
        return TokenizerOutput(
            loss=cost.mean() / self.signal.dims + quantizer_loss,
            nll=cost if self.likelihood.has_likelihood else None,
            codes=(codes,),
            scalars={"perplexity": usage.perplexity},
        )

    def encode(self, x: Tensor) -> Codes:
        return (self.quantizer.encode(self._vectors(x)),)

    def vectors(self, codes: Codes) -> tuple[Tensor, ...]:
        return (self.quantizer.decode(codes[0]),)

    def decode_vectors(self, vectors: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return self.decoder(vectors[0], labels)

    def _vectors(self, x: Tensor) -> Tensor:
        return self.encoder(self.signal.scaled(x, next(self.encoder.parameters()).dtype))


def _with_maps(grid: tuple[int, ...], code_maps: int) -> tuple[int, ...]:
    if code_maps < 1 or (code_maps > 1 and len(grid) > 2):
        raise ValueError(
            f"code_maps must be at least 1, and 1 on a grid of three axes, got {code_maps}"
        )
    return (*grid, code_maps) if code_maps > 1 else grid


def _make_quantizer(config: VQVAEConfig) -> vq.nn.VectorQuantizer | vq.nn.GroupedVQ:
    if config.code_maps == 1:
        return config.make_quantizer(config.num_embeddings)
    return vq.nn.GroupedVQ(
        lambda: config.make_quantizer(config.num_embeddings), config.code_maps, shared=True
    )
