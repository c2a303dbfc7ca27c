"""Discrete likelihoods: they turn a decoder's output into bits. One file each."""

from vqtrain.models.likelihood.categorical import Categorical
from vqtrain.models.likelihood.likelihood import Likelihood, NoLikelihoodError

__all__ = ["Categorical", "Likelihood", "NoLikelihoodError"]
