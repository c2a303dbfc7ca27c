"""Two questions to samples that no distance can answer, asked with a fixed classifier.

- Label agreement: does a classifier trained on real items read the class that was asked for?
- Classification accuracy score (Ravuri and Vinyals 2019, arXiv 1905.10887): does a classifier
  trained on samples alone read real items? It stays high when some samples are wrong, so it
  never stands alone.

The classifier is a support vector machine with RBF kernel, C = 10 and gamma = 1 / (features *
variance of its training features), on the features of `vqtrain.metrics.features`. What it reads
of real test items when trained on real ones is the ceiling of both.
"""

from typing import NamedTuple

import torch
from sklearn.svm import SVC
from torch import Tensor

from vqtrain.data.dataset import Split
from vqtrain.metrics.features import Features


class SampleScores(NamedTuple):
    """Accuracies in [0, 1].

    Attributes:
        label_agreement: trained on real training items, read on samples.
        cas: trained on samples, read on real test items.
        ceiling: trained on real training items, read on real test items.
        per_class: `label_agreement` of each class.
    """

    label_agreement: float
    cas: float
    ceiling: float
    per_class: tuple[float, ...]


def score_samples(
    samples: Tensor, labels: Tensor, train: Split, test: Split, features: Features
) -> SampleScores:
    """Scores class-conditional samples.

    Args:
        samples: `(N, C, *size)` levels, integer or (for decoder means) floating.
        labels: `(N,)` the classes asked for, at least two different ones.
        train: clean real training items.
        test: real items that nothing was fitted to.
        features: fitted on the training items.
    """
    inputs, seen, unseen = features(samples), features(train.x), features(test.x)
    real = SVC(C=10, gamma="scale").fit(seen, train.labels)
    fake = SVC(C=10, gamma="scale").fit(inputs, labels)
    right = torch.from_numpy(real.predict(inputs)) == labels
    return SampleScores(
        label_agreement=right.double().mean().item(),
        cas=fake.score(unseen, test.labels),
        ceiling=real.score(unseen, test.labels),
        per_class=tuple(right[labels == y].double().mean().item() for y in labels.unique()),
    )
