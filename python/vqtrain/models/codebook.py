"""The options that all codebooks of a model share."""

from dataclasses import dataclass
from typing import Literal

import vqkernels as vq


@dataclass(frozen=True, kw_only=True)
class CodebookConfig:
    """How vectors become codes, and how codes are learned.

    Args:
        embedding_dim: D, length of a code vector.
        commitment_weight: beta of equation 3 of van den Oord et al. 2017 (arXiv 1711.00937).
        codebook_update: ema moves codes to averages of their vectors (that paper's appendix A.1);
            gradient trains them by its second loss term, as its experiments did.
        ema_decay: decay of the moving averages; only for ema.
        metric: l2 takes the nearest code; cosine the one of the nearest direction (Yu et al.
            2021, arXiv 2110.04627).
        estimator: gradient of the encoder: straight_through copies the decoder's; rotation turns
            it by the angle from vector to code (Fifty et al. 2024, arXiv 2410.06424).
    """

    embedding_dim: int = 16
    commitment_weight: float = 0.25
    codebook_update: Literal["ema", "gradient"] = "ema"
    ema_decay: float = 0.99
    metric: Literal["l2", "cosine"] = "l2"
    estimator: Literal["straight_through", "rotation"] = "straight_through"

    def make_quantizer(self, num_embeddings: int) -> vq.nn.VectorQuantizer:
        """A quantizer of `(B, D, *grid)`; k-means on the first batch is its first codebook."""
        return vq.nn.VectorQuantizer(
            num_embeddings,
            self.embedding_dim,
            commitment_weight=self.commitment_weight,
            update=vq.EMA(self.ema_decay) if self.codebook_update == "ema" else vq.Gradient(),
            metric=self.metric,
            estimator=self.estimator,
        )
