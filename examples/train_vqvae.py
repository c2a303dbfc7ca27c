"""A VQ-VAE on handwritten digits: plain PyTorch around `vq.nn.VectorQuantizer`.

    python examples/train_vqvae.py --steps 500 --out digits.png

Needs torch, scikit-learn and vqkernels; half a minute on one CPU core. The quantizer is one line
of the model. It returns the quantized vectors (with a straight-through gradient), the codes, the
loss to add and the usage of the codebook, which it trains by itself, by moving averages.
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import vqkernels as vq


class VQVAE(nn.Module):
    """8x8 images to 4x4 codes and back."""

    def __init__(self, num_embeddings: int, width: int = 64, dim: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, dim, 1),
        )
        # A decay of 0.99 is usual; a run of a few hundred steps needs averages that forget sooner.
        self.quantizer = vq.nn.VectorQuantizer(num_embeddings, dim, update=vq.EMA(decay=0.9))
        self.decoder = nn.Sequential(
            nn.Conv2d(dim, width, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = self.quantizer(self.encoder(images))
        return self.decoder(out.quantized), out.loss, out.usage.perplexity


def save_picture(path: str, images: Tensor, decoded: Tensor) -> None:
    """Ten held-out digits above their reconstructions."""
    from PIL import Image

    rows = [torch.cat(list(F.pad(x[:10, 0], (1, 1, 1, 1))), dim=1) for x in (images, decoded)]
    pixels = 255 - torch.cat(rows).clamp(0, 1).mul(255).byte()
    size = (pixels.shape[1] * 8, pixels.shape[0] * 8)
    Image.fromarray(pixels.numpy()).resize(size, Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a VQ-VAE on handwritten digits.")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--num-embeddings", type=int, default=64, help="codes in the codebook")
    parser.add_argument("--out", help="PNG for reconstructions of held-out digits")
    args = parser.parse_args()

    torch.manual_seed(0)
    images = torch.from_numpy(load_digits().images).float()[:, None] / 16
    order = torch.randperm(len(images))
    train, test = images[order[360:]], images[order[:360]]
    model = VQVAE(args.num_embeddings)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    for step in range(1, args.steps + 1):
        batch = train[torch.randint(len(train), (128,))]
        decoded, quantizer_loss, perplexity = model(batch)
        # As in the original notebook: the error in units of the data's variance.
        loss = F.mse_loss(decoded, batch) / train.var() + quantizer_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == args.steps:
            print(f"step {step:5d}  loss {loss:.4f}  perplexity {perplexity:.1f}", flush=True)

    model.eval()
    with torch.no_grad():
        decoded, _, perplexity = model(test)
    mse = F.mse_loss(decoded, test)
    print(f"held out: mse {mse:.4f}, psnr {-10 * mse.log10():.1f} dB, perplexity {perplexity:.1f}")
    if args.out:
        save_picture(args.out, test, decoded)


if __name__ == "__main__":
    main()
