"""A small model in the manner of VQGAN, around any quantizer of its kind."""

from __future__ import annotations

from torch import Tensor, nn


class VQModel(nn.Module):
    def __init__(self, quantize: nn.Module, width: int = 8, embed_dim: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.quant_conv = nn.Conv2d(width, embed_dim, 1)
        self.quantize = quantize
        self.post_quant_conv = nn.Conv2d(embed_dim, width, 1)
        self.decoder = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
        )

    def encode(self, image: Tensor) -> tuple:
        return self.quantize(self.quant_conv(self.encoder(image)))

    def decode(self, quant: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(quant))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        quant, loss, _ = self.encode(image)
        return self.decode(quant), loss
