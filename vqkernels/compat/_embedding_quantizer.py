"""What the quantizers have in common whose codebook is an ``nn.Embedding``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vqkernels import _checks, functional
from vqkernels._nearest_codes import nearest_codes
from vqkernels.compat._peer import Peer
from vqkernels.outputs import VQOutput

_PROBES = 8


class EmbeddingQuantizer(Peer):
    """Nearest code by squared distance, straight-through, codebook trained by gradient."""

    @property
    def _codebook(self) -> Tensor:
        """(K, D), the weight of the embedding."""
        raise NotImplementedError

    def _quantize(self, z: Tensor, commitment_weight: float, codebook_weight: float) -> VQOutput:
        """``vector_quantize`` of z (B, D, H, W), in the layout and the dtypes of plain torch.

        There ``z + (q - z)`` promotes z and the codes to one dtype, which also the loss is in.
        """
        codes = self._codebook
        _checks.vectors(z, codes.shape[1], 1, name="z")
        dtype = torch.promote_types(z.dtype, codes.dtype)
        out = functional.vector_quantize(
            z.to(dtype),
            codes,
            commitment_weight=commitment_weight,
            codebook_weight=codebook_weight,
        )
        return out._replace(quantized=out.quantized.contiguous(), loss=out.loss.to(dtype))

    def probe_input(self) -> Tensor:
        return probe_images(self._codebook)


def embedding(num_embeddings: int, embedding_dim: int) -> nn.Embedding:
    """Codes drawn from [-1/K, 1/K], with the draws from torch's generator that theirs take."""
    made = nn.Embedding(num_embeddings, embedding_dim)
    nn.init.uniform_(made.weight, -1.0 / num_embeddings, 1.0 / num_embeddings)
    return made


def probe_images(codebook: Tensor) -> Tensor:
    """(2, D, 2, 2) of ``probe_rows``."""
    rows = probe_rows(codebook)
    return rows.reshape(2, 2, 2, -1).permute(0, 3, 1, 2).contiguous()


def probe_rows(codebook: Tensor) -> Tensor:
    """Eight rows, each a quarter of the way from a code to the next one.

    That code is the nearest by far, and no term of a loss is zero.
    """
    codes = codebook.detach()
    rows = codes[torch.arange(_PROBES, device=codes.device) % len(codes)]
    if len(codes) == 1:
        return rows + 1.0
    nearest = nearest_codes(rows, codes, 2).indices
    return rows + 0.25 * (codes[nearest[:, 1]] - rows)
