"""Drop-in classes for the quantizer of ``transformers.DacModel``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor, nn

from vqkernels.compat._dac import FactorizedQuantizer, FactorizedResidualQuantizer

_THEIRS = "transformers.models.dac.modeling_dac."


class DacVectorQuantize(FactorizedQuantizer):
    """``transformers.models.dac.modeling_dac.DacVectorQuantize``: one level of DAC.

    Args:
        config: has ``hidden_size`` (channels of the input), ``codebook_size`` (K) and
            ``codebook_dim``.

    The losses are 0-d means. Codes are searched exactly: the largest float64 dot product with
    ``float32(c/|c|)``, ties to the lowest index.
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "DacVectorQuantize",)

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.codebook_dim = config.codebook_dim
        self.in_proj = nn.Conv1d(config.hidden_size, config.codebook_dim, kernel_size=1)
        self.out_proj = nn.Conv1d(config.codebook_dim, config.hidden_size, kernel_size=1)
        self.codebook = nn.Embedding(config.codebook_size, config.codebook_dim)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "config": SimpleNamespace(
                hidden_size=theirs.in_proj.in_channels,
                codebook_dim=theirs.codebook_dim,
                codebook_size=theirs.codebook.num_embeddings,
            )
        }

    def _mean(self, squares: Tensor) -> Tensor:
        return squares.mean()


class DacResidualVectorQuantizer(FactorizedResidualQuantizer):
    """``transformers.models.dac.modeling_dac.DacResidualVectorQuantizer``.

    Args:
        config: what ``DacVectorQuantize`` reads, ``n_codebooks`` (L) and ``quantizer_dropout``.

    The losses are (B,): of every level, the mean over the batch for each element that takes part
    in it.
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "DacResidualVectorQuantizer",)

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.n_codebooks = config.n_codebooks
        self.quantizers = nn.ModuleList(
            DacVectorQuantize(config) for _ in range(config.n_codebooks)
        )
        self.quantizer_dropout = config.quantizer_dropout

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        config = DacVectorQuantize.arguments_of(theirs.quantizers[0])["config"]
        config.n_codebooks = theirs.n_codebooks
        config.quantizer_dropout = theirs.quantizer_dropout
        return {"config": config}

    def from_latents(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Quantizes what ``in_proj`` of every level has returned, (B, L' * codebook_dim, T).

        Returns:
            (quantized (B, hidden_size, T), the codes' rows like latents).
        """
        return self._nearest_rows(latents)[:2]

    def _of_batch(self, loss: Tensor, takes: Tensor) -> Tensor:
        return loss * takes
