"""Models of codes: one interface (`vqtrain.priors.prior`), one file per model."""

from vqtrain.priors.conditioning import UpperLevels
from vqtrain.priors.pixelcnn import GatedPixelCNN, PixelCNNConfig
from vqtrain.priors.prior import CodeSpace, Prior
from vqtrain.priors.sampling import Sampler

PRIORS: dict[str, type[Prior]] = {"pixelcnn": GatedPixelCNN}

__all__ = [
    "PRIORS",
    "CodeSpace",
    "GatedPixelCNN",
    "PixelCNNConfig",
    "Prior",
    "Sampler",
    "UpperLevels",
]
