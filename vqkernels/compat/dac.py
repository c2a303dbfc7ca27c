"""Drop-in classes for descript-audio-codec (``dac.nn.quantize``)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.utils import weight_norm

from vqkernels.compat._dac import FactorizedQuantizer, FactorizedResidualQuantizer

__all__ = ["ResidualVectorQuantize", "VectorQuantize"]


class VectorQuantize(FactorizedQuantizer):
    """``dac.nn.quantize.VectorQuantize``: one level of the Descript Audio Codec.

    Args:
        input_dim: channels of z.
        codebook_size: K, number of codes.
        codebook_dim: channels that codes have.

    The losses are means per element of the batch, (B,). Codes are searched exactly: the largest
    float64 dot product with ``float32(c/|c|)``, ties to the lowest index.
    """

    replaces: ClassVar[tuple[str, ...]] = ("dac.nn.quantize.VectorQuantize",)

    def __init__(self, input_dim: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.codebook_dim = codebook_dim
        self.in_proj = weight_norm(nn.Conv1d(input_dim, codebook_dim, kernel_size=1))
        self.out_proj = weight_norm(nn.Conv1d(codebook_dim, input_dim, kernel_size=1))
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "input_dim": theirs.in_proj.in_channels,
            "codebook_size": theirs.codebook_size,
            "codebook_dim": theirs.codebook_dim,
        }

    def embed_code(self, embed_id: Tensor) -> Tensor:
        """Rows of the codebook, channels last."""
        return nn.functional.embedding(embed_id, self.codebook.weight)

    def decode_code(self, embed_id: Tensor) -> Tensor:
        """Rows of the codebook for (B, T) indices: (B, codebook_dim, T)."""
        return self.embed_code(embed_id).transpose(1, 2)

    def _mean(self, squares: Tensor) -> Tensor:
        return squares.mean([1, 2])


class ResidualVectorQuantize(FactorizedResidualQuantizer):
    """``dac.nn.quantize.ResidualVectorQuantize``: the quantizer of the Descript Audio Codec.

    Args:
        input_dim: channels of z.
        n_codebooks: L, number of levels.
        codebook_size: K, number of codes of each level.
        codebook_dim: channels that codes have; a list gives every level its own.
        quantizer_dropout: share of a training batch whose number of levels is drawn.

    The losses are 0-d: sums over the levels of means over the batch, where dropped elements count
    as 0.
    """

    replaces: ClassVar[tuple[str, ...]] = ("dac.nn.quantize.ResidualVectorQuantize",)

    def __init__(
        self,
        input_dim: int = 512,
        n_codebooks: int = 9,
        codebook_size: int = 1024,
        codebook_dim: int | list[int] = 8,
        quantizer_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(codebook_dim, int):
            codebook_dim = [codebook_dim] * n_codebooks
        self.n_codebooks = n_codebooks
        self.codebook_dim = codebook_dim
        self.codebook_size = codebook_size
        self.quantizers = nn.ModuleList(
            VectorQuantize(input_dim, codebook_size, width) for width in codebook_dim[:n_codebooks]
        )
        self.quantizer_dropout = quantizer_dropout

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "input_dim": theirs.quantizers[0].in_proj.in_channels,
            "n_codebooks": theirs.n_codebooks,
            "codebook_size": theirs.codebook_size,
            "codebook_dim": list(theirs.codebook_dim),
            "quantizer_dropout": theirs.quantizer_dropout,
        }

    def from_latents(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes what ``in_proj`` of every level has returned, (B, L' * codebook_dim, T).

        Returns:
            (z_q (B, input_dim, T), the codes' rows like latents, codes (B, L', T)).
        """
        return self._nearest_rows(latents)

    def _of_batch(self, loss: Tensor, takes: Tensor) -> Tensor:
        return (loss * takes).mean()
