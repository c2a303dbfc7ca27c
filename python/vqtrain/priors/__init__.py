"""Models of codes: one interface (`vqtrain.priors.prior`), one file per model."""

from vqtrain.priors.conditioning import UpperLevels
from vqtrain.priors.gpt import CodeGPT, GPTConfig
from vqtrain.priors.masked import MaskedConfig, MaskedPrior
from vqtrain.priors.pixelcnn import GatedPixelCNN, PixelCNNConfig
from vqtrain.priors.pixelsnail import PixelSNAIL, PixelSNAILConfig
from vqtrain.priors.prior import CodeSpace, Prior
from vqtrain.priors.sampling import Sampler

PRIORS: dict[str, type[Prior]] = {
    "pixelcnn": GatedPixelCNN,
    "pixelsnail": PixelSNAIL,
    "gpt": CodeGPT,
    "masked": MaskedPrior,
}

__all__ = [
    "PRIORS",
    "CodeGPT",
    "CodeSpace",
    "GPTConfig",
    "GatedPixelCNN",
    "MaskedConfig",
    "MaskedPrior",
    "PixelCNNConfig",
    "PixelSNAIL",
    "PixelSNAILConfig",
    "Prior",
    "Sampler",
    "UpperLevels",
]
