"""Models of signals: tokenizers, which have codes, and the likelihoods of their decoders."""

from vqtrain.models.likelihood import Categorical, Likelihood, NoLikelihoodError
from vqtrain.models.tokenizer import Codes, Signal, Tokenizer, TokenizerOutput
from vqtrain.models.vqvae import VQVAE, VQVAEConfig

TOKENIZERS: dict[str, type[Tokenizer]] = {"vqvae": VQVAE}

__all__ = [
    "TOKENIZERS",
    "VQVAE",
    "Categorical",
    "Codes",
    "Likelihood",
    "NoLikelihoodError",
    "Signal",
    "Tokenizer",
    "TokenizerOutput",
    "VQVAEConfig",
]
