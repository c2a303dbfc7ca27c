"""The convolutional trunk that all models share (van den Oord et al. 2017, arXiv 1711.00937).

Encoder: strided 4-wide convolutions, then residual blocks (ReLU, 3-wide, ReLU, 1-wide). Decoder:
the mirror image, with transposed convolutions. One to three dimensions.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from vqtrain.models.spatial import CONV, CONV_TRANSPOSE, over_space


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """Size of encoder and decoder.

    Args:
        hidden: channels of the trunk (the paper: 256).
        residual_hidden: channels inside a residual block.
        residual_blocks: residual blocks in the encoder, and as many in the decoder (the paper: 2).
        dropout: dropout in the decoder's residual blocks.
        class_conditional: whether the decoder is told the label.
        decoder: mirror is the encoder's mirror image; dilated is a WaveNet-like stack at the
            signal's own rate, for sound.
        dilated_layers: layers of the dilated decoder.
        dilation_cycle: its dilations are 1, 2, 4 and so on, and start anew after this many.
        patch_shortcut: adds a linear map of the patch that a vector stands for to encoder and
            decoder, as Chen et al. 2024 (arXiv 2410.10733) do without weights. Both learn first
            to quantize patches, in a few hundred steps, then what is to be gained beyond that;
            only for mirror.
    """

    hidden: int = 48
    residual_hidden: int = 32
    residual_blocks: int = 2
    dropout: float = 0.0
    class_conditional: bool = True
    decoder: Literal["mirror", "dilated"] = "mirror"
    dilated_layers: int = 10
    dilation_cycle: int = 10
    patch_shortcut: bool = False


class ResidualBlock(nn.Module):
    """x + conv1(relu(conv3(relu(x))))."""

    def __init__(self, ndim: int, channels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        conv = CONV[ndim]
        self.layers = nn.Sequential(
            nn.ReLU(),
            conv(channels, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(dropout),
            conv(hidden, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Encoder(nn.Module):
    """`(B, inputs, *size)` to `(B, outputs, *size / 2^n)`, n strided convolutions.

    Args:
        config: sizes.
        ndim: spatial dimensions.
        inputs, outputs: channels.
        downsamplings: n.
    """

    def __init__(
        self, config: TrunkConfig, ndim: int, inputs: int, outputs: int, downsamplings: int
    ) -> None:
        super().__init__()
        conv, hidden = CONV[ndim], config.hidden
        layers: list[nn.Module] = []
        for i in range(downsamplings):
            layers += [conv(hidden if i else inputs, hidden, 4, 2, 1), nn.ReLU()]
        layers.append(conv(hidden if layers else inputs, hidden, 3, padding=1))
        layers += [
            ResidualBlock(ndim, hidden, config.residual_hidden, 0.0)
            for _ in range(config.residual_blocks)
        ]
        layers += [nn.ReLU(), conv(hidden, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        side = 2**downsamplings
        self.shortcut = conv(inputs, outputs, side, side) if config.patch_shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return y if self.shortcut is None else y + self.shortcut(x)


def upsampling(ndim: int, channels: int, times: int) -> nn.Sequential:
    """Transposed convolutions, each of which doubles every axis."""
    layers: list[nn.Module] = []
    for _ in range(times):
        layers += [CONV_TRANSPOSE[ndim](channels, channels, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers)


class Decoder(nn.Module):
    """`(B, inputs, *grid)` and labels to `(B, outputs, *grid * 2^n)`.

    Args:
        config: sizes.
        ndim: spatial dimensions.
        inputs, outputs: channels.
        num_labels: labels that it can be told; None if it is told none.
        upsamplings: n, transposed convolutions.
    """

    def __init__(
        self,
        config: TrunkConfig,
        ndim: int,
        inputs: int,
        outputs: int,
        num_labels: int | None,
        upsamplings: int,
    ) -> None:
        super().__init__()
        conv, hidden = CONV[ndim], config.hidden
        self.ndim = ndim
        self.input = conv(inputs, hidden, 3, padding=1)
        self.label = None if num_labels is None else nn.Embedding(num_labels, hidden)
        self.residual = nn.Sequential(
            *(
                ResidualBlock(ndim, hidden, config.residual_hidden, config.dropout)
                for _ in range(config.residual_blocks)
            ),
            nn.ReLU(),
        )
        self.upsampling = upsampling(ndim, hidden, upsamplings)
        self.output = conv(hidden, outputs, 3, padding=1)
        side = 2**upsamplings
        self.shortcut = (
            CONV_TRANSPOSE[ndim](inputs, outputs, side, side) if config.patch_shortcut else None
        )

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.input(latents)
        if self.label is not None:
            x = x + over_space(self.label(labels), self.ndim)
        y = self.output(self.upsampling(self.residual(x)))
        return y if self.shortcut is None else y + self.shortcut(latents)
