"""VQ-VAE (van den Oord, Vinyals and Kavukcuoglu 2017, arXiv 1711.00937), sized by its config.

Encoder: strided 4x4 convolutions, then residual blocks (ReLU, 3x3, ReLU, 1x1); decoder mirrored
with transposed convolutions. The quantizer is `vqkernels.nn.VectorQuantizer`. The decoder outputs
the parameters of a discrete likelihood, so reconstruction is measured in bits and not in squared
error.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

import vqkernels as vq
from vqtrain.models.likelihood import Categorical


@dataclass(frozen=True, kw_only=True)
class VQVAEConfig:
    """Size of the tokenizer.

    Args:
        hidden: channels of the trunk (the paper: 256).
        residual_hidden: channels inside a residual block.
        residual_blocks: residual blocks in the encoder, and as many in the decoder (the paper: 2).
        downsamplings: strided convolutions; each halves height and width.
        num_embeddings: K, codes in the codebook.
        embedding_dim: D, length of a code vector.
        commitment_weight: beta of the paper's equation 3.
        ema_decay: decay of the codebook's moving averages (the paper's appendix A.1).
        dropout: dropout in the decoder's residual blocks.
        class_conditional: whether the decoder is told the label.
    """

    hidden: int = 48
    residual_hidden: int = 32
    residual_blocks: int = 2
    downsamplings: int = 1
    num_embeddings: int = 8
    embedding_dim: int = 16
    commitment_weight: float = 0.25
    ema_decay: float = 0.99
    dropout: float = 0.0
    class_conditional: bool = True


class VQVAEOutput(NamedTuple):
    """What a training step needs.

    Attributes:
        nll: `(B,)` nats per image, -log p(x | codes, label).
        codes: `(B, h, w)` int64.
        loss: 0-d, mean nats per dimension plus the quantizer's loss.
        perplexity: 0-d, exp of the entropy of the code histogram of this batch.
    """

    nll: Tensor
    codes: Tensor
    loss: Tensor
    perplexity: Tensor


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Encoder(nn.Module):
    """`(B, C, H, W)` in [-1, 1] to `(B, D, H / 2^n, W / 2^n)`."""

    def __init__(self, config: VQVAEConfig, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(config.downsamplings):
            layers += [
                nn.Conv2d(config.hidden if i else channels, config.hidden, 4, 2, 1),
                nn.ReLU(),
            ]
        layers.append(
            nn.Conv2d(config.hidden if layers else channels, config.hidden, 3, padding=1)
        )
        layers += [
            ResidualBlock(config.hidden, config.residual_hidden, 0.0)
            for _ in range(config.residual_blocks)
        ]
        layers += [nn.ReLU(), nn.Conv2d(config.hidden, config.embedding_dim, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Decoder(nn.Module):
    """`(B, D, h, w)` and labels to likelihood parameters `(B, C * P, h * 2^n, w * 2^n)`."""

    def __init__(self, config: VQVAEConfig, outputs: int, num_labels: int) -> None:
        super().__init__()
        hidden = config.hidden
        self.input = nn.Conv2d(config.embedding_dim, hidden, 3, padding=1)
        self.label = nn.Embedding(num_labels, hidden) if config.class_conditional else None
        self.residual = nn.Sequential(
            *(
                ResidualBlock(hidden, config.residual_hidden, config.dropout)
                for _ in range(config.residual_blocks)
            ),
            nn.ReLU(),
        )
        upsampling: list[nn.Module] = []
        for _ in range(config.downsamplings):
            upsampling += [nn.ConvTranspose2d(hidden, hidden, 4, 2, 1), nn.ReLU()]
        self.upsampling = nn.Sequential(*upsampling)
        self.output = nn.Conv2d(hidden, outputs, 3, padding=1)

    def forward(self, quantized: Tensor, labels: Tensor) -> Tensor:
        x = self.input(quantized)
        if self.label is not None:
            x = x + self.label(labels)[:, :, None, None]
        return self.output(self.upsampling(self.residual(x)))


class VQVAE(nn.Module):
    """Images to a grid of codes and back.

    Args:
        config: sizes.
        channels: image channels C.
        levels: grey levels of a pixel.
        num_labels: labels the decoder can be told.
    """

    def __init__(
        self, config: VQVAEConfig, *, channels: int, levels: int, num_labels: int
    ) -> None:
        super().__init__()
        self.config, self.channels, self.levels = config, channels, levels
        self.num_labels = num_labels
        self.likelihood = Categorical(levels)
        self.encoder = Encoder(config, channels)
        self.quantizer = vq.nn.VectorQuantizer(
            config.num_embeddings,
            config.embedding_dim,
            commitment_weight=config.commitment_weight,
            update=vq.EMA(decay=config.ema_decay),
            revive=vq.Revive(),
        )
        self.decoder = Decoder(config, channels * self.likelihood.num_parameters, num_labels)

    def description(self) -> dict[str, Any]:
        """Everything that rebuilds this module apart from its weights, as JSON types."""
        return {
            "config": asdict(self.config),
            "channels": self.channels,
            "levels": self.levels,
            "num_labels": self.num_labels,
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> "VQVAE":
        """Inverse of `description`, with fresh weights."""
        sizes = {key: description[key] for key in ("channels", "levels", "num_labels")}
        return cls(VQVAEConfig(**description["config"]), **sizes)

    def forward(self, images: Tensor, labels: Tensor) -> VQVAEOutput:
        """Encodes, quantizes, decodes and measures.

        Args:
            images: `(B, C, H, W)` integer levels; H and W multiples of `2 ** downsamplings`.
            labels: `(B,)` int64, ignored unless the decoder is class-conditional.

        Returns:
            The losses and codes. In training mode this also feeds the codebook's moving averages.
        """
        quantized, codes, quantizer_loss, usage = self.quantizer(self._latents(images))
        nll = self._nll(self.decoder(quantized, labels), images)
        loss = nll.mean() / images[0].numel() + quantizer_loss
        return VQVAEOutput(nll, codes, loss, usage.perplexity)

    def encode(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` integer levels to `(B, h, w)` int64 codes in `0 .. K - 1`."""
        return self.quantizer.encode(self._latents(images))

    def decode(self, codes: Tensor, labels: Tensor) -> Tensor:
        """`(B, h, w)` codes and `(B,)` labels to likelihood parameters `(B, C * P, H, W)`.

        `model.likelihood.mean` and `.draw` turn the parameters into grey levels.
        """
        return self.decoder(self.quantizer.decode(codes), labels)

    def nll(self, images: Tensor, labels: Tensor, codes: Tensor | None = None) -> Tensor:
        """`(B,)` nats per image, -log p(x | z, label), for z = `codes` or the encoder's."""
        codes = self.encode(images) if codes is None else codes
        return self._nll(self.decode(codes, labels), images)

    def _latents(self, images: Tensor) -> Tensor:
        factor = 2**self.config.downsamplings
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(
                f"images must have shape (B, {self.channels}, H, W), got {tuple(images.shape)}"
            )
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(
                f"images must have height and width divisible by {factor}, "
                f"got {tuple(images.shape[2:])}"
            )
        # Grey levels to [-1, 1], in the parameters' dtype.
        dtype = next(self.encoder.parameters()).dtype
        return self.encoder(images.to(dtype) * (2 / (self.levels - 1)) - 1)

    def _nll(self, parameters: Tensor, images: Tensor) -> Tensor:
        return -self.likelihood.log_prob(parameters, images).flatten(1).sum(1)
