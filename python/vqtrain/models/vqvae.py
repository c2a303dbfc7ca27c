"""VQ-VAE (van den Oord, Vinyals and Kavukcuoglu 2017, arXiv 1711.00937), sized by its config.

An encoder gives a grid of vectors, each becomes its nearest code, and a decoder gives the
parameters of a discrete likelihood, so that reconstruction is measured in bits and not in squared
error. The trunk is in `vqtrain.models.trunk`, the quantizer in `vqkernels.nn`.
"""

from dataclasses import dataclass

from torch import Tensor

import vqkernels as vq
from vqtrain.models.likelihood import Categorical
from vqtrain.models.spatial import shrunk
from vqtrain.models.tokenizer import Codes, Signal, Tokenizer, TokenizerOutput
from vqtrain.models.trunk import Decoder, Encoder, TrunkConfig


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig(TrunkConfig):
    """Size of the tokenizer.

    Args:
        downsamplings: strided convolutions; each halves every axis.
        num_embeddings: K, codes in the codebook.
        embedding_dim: D, length of a code vector.
        commitment_weight: beta of the paper's equation 3.
        ema_decay: decay of the codebook's moving averages (the paper's appendix A.1).
    """

    downsamplings: int = 1
    num_embeddings: int = 8
    embedding_dim: int = 16
    commitment_weight: float = 0.25
    ema_decay: float = 0.99


class VQVAE(Tokenizer):
    """A signal to one grid of codes and back.

    Args:
        config: sizes.
        signal: what it is a tokenizer of; every length a multiple of `2 ** downsamplings`.

    Raises:
        ValueError: if the signal cannot be halved that often.
    """

    config_type = VQVAEConfig

    def __init__(self, config: VQVAEConfig, signal: Signal) -> None:
        super().__init__(config, signal)
        self.code_grids = (shrunk(signal.size, config.downsamplings),)
        self.codebook_sizes = (config.num_embeddings,)
        self.likelihood = Categorical(signal.levels)
        self.encoder = Encoder(
            config, signal.ndim, signal.channels, config.embedding_dim, config.downsamplings
        )
        self.quantizer = vq.nn.VectorQuantizer(
            config.num_embeddings,
            config.embedding_dim,
            commitment_weight=config.commitment_weight,
            update=vq.EMA(decay=config.ema_decay),
            revive=vq.Revive(),
        )
        self.decoder = Decoder(
            config,
            signal.ndim,
            config.embedding_dim,
            signal.channels * self.likelihood.num_parameters,
            signal.num_labels if config.class_conditional else None,
            config.downsamplings,
        )

    def forward(self, x: Tensor, labels: Tensor) -> TokenizerOutput:
        quantized, codes, quantizer_loss, usage = self.quantizer(self._latents(x))
        loss, nll = self.measure(self.decoder(quantized, labels), x)
        scalars = {"perplexity": usage.perplexity}
        return TokenizerOutput(loss + quantizer_loss, nll, (codes,), scalars)

    def encode(self, x: Tensor) -> Codes:
        return (self.quantizer.encode(self._latents(x)),)

    def decode(self, codes: Codes, labels: Tensor) -> Tensor:
        self.check_codes(codes)
        return self.decoder(self.quantizer.decode(codes[0]), labels)

    def _latents(self, x: Tensor) -> Tensor:
        return self.encoder(self.signal.scaled(x, next(self.encoder.parameters()).dtype))
