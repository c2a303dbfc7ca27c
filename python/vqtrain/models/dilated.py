"""A decoder of gated dilated convolutions, for sound (after van den Oord et al. 2016, WaveNet,
arXiv 1609.03499, which the audio model of arXiv 1711.00937 decodes with).

Other than theirs it is not autoregressive: every sample is independent of the others given codes
and label, the convolutions look both ways, and decoding is one pass. What the codes do not say
about phase is lost, and bits/dim must be read with that in mind.
"""

import torch
from torch import Tensor, nn

from vqtrain.models.spatial import CONV, over_space
from vqtrain.models.trunk import Decoder, TrunkConfig, upsampling


class DilatedLayer(nn.Module):
    """tanh(a) * sigmoid(b) of a dilated convolution and the label, to a residual and a skip."""

    def __init__(
        self, ndim: int, hidden: int, dilation: int, num_labels: int | None, dropout: float
    ) -> None:
        super().__init__()
        conv = CONV[ndim]
        self.ndim = ndim
        self.dilated = conv(hidden, 2 * hidden, 3, padding=dilation, dilation=dilation)
        self.label = None if num_labels is None else nn.Embedding(num_labels, 2 * hidden)
        self.dropout = nn.Dropout(dropout)
        self.output = conv(hidden, 2 * hidden, 1)

    def forward(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        gates = self.dilated(x)
        if self.label is not None:
            gates = gates + over_space(self.label(labels), self.ndim)
        a, b = gates.chunk(2, dim=1)
        residual, skip = self.output(self.dropout(a.tanh() * b.sigmoid())).chunk(2, dim=1)
        return x + residual, skip


class DilatedDecoder(nn.Module):
    """`(B, inputs, *grid)` and labels to `(B, outputs, *grid * 2^n)`.

    Args:
        config: sizes.
        ndim: spatial dimensions.
        inputs, outputs: channels.
        num_labels: labels that it can be told; None if it is told none.
        upsamplings: n, transposed convolutions before the dilated ones.
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
        self.input = nn.Sequential(conv(inputs, hidden, 3, padding=1), nn.ReLU())
        self.upsampling = upsampling(ndim, hidden, upsamplings)
        dilations = [2 ** (i % config.dilation_cycle) for i in range(config.dilated_layers)]
        self.layers = nn.ModuleList(
            DilatedLayer(ndim, hidden, dilation, num_labels, config.dropout)
            for dilation in dilations
        )
        self.head = nn.Sequential(
            nn.ReLU(), conv(hidden, hidden, 1), nn.ReLU(), conv(hidden, outputs, 1)
        )

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        x = self.upsampling(self.input(latents))
        skips = []
        for layer in self.layers:
            x, skip = layer(x, labels)
            skips.append(skip)
        return self.head(torch.stack(skips).sum(0))


def make_decoder(
    config: TrunkConfig,
    ndim: int,
    inputs: int,
    outputs: int,
    num_labels: int,
    upsamplings: int,
) -> Decoder | DilatedDecoder:
    """The decoder to the signal that the configuration names.

    Raises:
        ValueError: if a dilated decoder is asked for a shortcut, which only its mirror has.
    """
    if config.decoder == "dilated" and config.patch_shortcut:
        raise ValueError("patch_shortcut must be false for a dilated decoder, got true")
    kind = DilatedDecoder if config.decoder == "dilated" else Decoder
    told = num_labels if config.class_conditional else None
    return kind(config, ndim, inputs, outputs, told, upsamplings)
