"""Discrete likelihoods: they turn a decoder's output into bits. One file each."""

from vqtrain.models.likelihood.categorical import Categorical
from vqtrain.models.likelihood.config import LikelihoodConfig
from vqtrain.models.likelihood.gaussian import BinnedGaussian
from vqtrain.models.likelihood.likelihood import Likelihood, NoLikelihoodError
from vqtrain.models.likelihood.logistic import LogisticMixture
from vqtrain.models.likelihood.squared_error import SquaredError

__all__ = [
    "BinnedGaussian",
    "Categorical",
    "Likelihood",
    "LikelihoodConfig",
    "LogisticMixture",
    "NoLikelihoodError",
    "SquaredError",
]
