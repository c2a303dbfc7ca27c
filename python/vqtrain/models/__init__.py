"""The tokenizer and the prior, and the likelihood that ties the tokenizer's decoder to pixels."""

from vqtrain.models.likelihood import Categorical
from vqtrain.models.pixelcnn import GatedPixelCNN, PixelCNNConfig
from vqtrain.models.vqvae import VQVAE, VQVAEConfig, VQVAEOutput

__all__ = ["VQVAE", "Categorical", "GatedPixelCNN", "PixelCNNConfig", "VQVAEConfig", "VQVAEOutput"]
