"""The tokenizer, and the likelihood that ties its decoder to pixels."""

from vqtrain.models.likelihood import Categorical
from vqtrain.models.vqvae import VQVAE, VQVAEConfig, VQVAEOutput

__all__ = ["VQVAE", "Categorical", "VQVAEConfig", "VQVAEOutput"]
