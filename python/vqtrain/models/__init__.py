"""Models of signals: tokenizers, which have codes, the VAE, which has none, and likelihoods."""

from vqtrain.models.identity import Identity
from vqtrain.models.likelihood import (
    BinnedGaussian,
    Categorical,
    Likelihood,
    LogisticMixture,
    NoLikelihoodError,
    SquaredError,
)
from vqtrain.models.tokenizer import Codes, Signal, SignalModel, Tokenizer, TokenizerOutput
from vqtrain.models.vae import VAE, VAEConfig, VAEOutput, active_units
from vqtrain.models.vqvae import VQVAE, VQVAEConfig
from vqtrain.models.vqvae2 import VQVAE2, VQVAE2Config

TOKENIZERS: dict[str, type[Tokenizer]] = {
    "vqvae": VQVAE,
    "vqvae2": VQVAE2,
    "identity": Identity,
}

__all__ = [
    "TOKENIZERS",
    "VAE",
    "VQVAE",
    "VQVAE2",
    "BinnedGaussian",
    "Categorical",
    "Codes",
    "Identity",
    "Likelihood",
    "LogisticMixture",
    "NoLikelihoodError",
    "Signal",
    "SignalModel",
    "SquaredError",
    "Tokenizer",
    "TokenizerOutput",
    "VAEConfig",
    "VAEOutput",
    "VQVAE2Config",
    "VQVAEConfig",
    "active_units",
]
