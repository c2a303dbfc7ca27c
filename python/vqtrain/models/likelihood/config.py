"""Which likelihood a decoder ends in."""

from dataclasses import dataclass
from typing import Literal

from vqtrain.models.likelihood.categorical import Categorical
from vqtrain.models.likelihood.gaussian import BinnedGaussian
from vqtrain.models.likelihood.likelihood import Likelihood
from vqtrain.models.likelihood.logistic import LogisticMixture
from vqtrain.models.likelihood.squared_error import SquaredError


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig:
    """The decoder's probabilities.

    Args:
        likelihood: categorical has a logit per level; logistic is a mixture of discretised
            logistics; gaussian is integrated over the bin of each level; mse is a squared error,
            which reports no bits.
        mixtures: components of the logistic mixture.
        scale: whether the gaussian learns one scale, or predicts one per entry.
        data_variance: divides the squared error of mse; variance of the data in [-1, 1].
    """

    likelihood: Literal["categorical", "logistic", "gaussian", "mse"] = "categorical"
    mixtures: int = 5
    scale: Literal["global", "pixel"] = "pixel"
    data_variance: float = 1.0

    def make_likelihood(self, levels: int) -> Likelihood:
        """The likelihood of `levels` levels that these fields name."""
        if self.likelihood == "categorical":
            return Categorical(levels)
        if self.likelihood == "logistic":
            return LogisticMixture(levels, self.mixtures)
        if self.likelihood == "gaussian":
            return BinnedGaussian(levels, self.scale)
        return SquaredError(levels, self.data_variance)
