"""Two questions to samples that no distance can answer, asked with a fixed classifier.

- Label agreement: does a classifier trained on real images read the class that was asked for?
- Classification accuracy score (Ravuri and Vinyals 2019, arXiv 1905.10887): does a classifier
  trained on samples alone read real images? It stays high when some samples are wrong, so it
  never stands alone.

The classifier is a support vector machine with RBF kernel, C = 10 and gamma = 1 / (pixels *
variance of its training pixels), on pixels in [0, 1]. It reads 99 % of the real digits, and that
figure is the ceiling.
"""

from typing import NamedTuple

import torch
from sklearn.svm import SVC
from torch import Tensor

from vqtrain.data.dataset import Split


class SampleScores(NamedTuple):
    """Accuracies in [0, 1].

    Attributes:
        label_agreement: trained on real training images, read on samples.
        cas: trained on samples, read on real test images.
        ceiling: trained on real training images, read on real test images.
        per_class: `label_agreement` of each class.
    """

    label_agreement: float
    cas: float
    ceiling: float
    per_class: tuple[float, ...]


def score_samples(
    samples: Tensor, labels: Tensor, train: Split, test: Split, levels: int
) -> SampleScores:
    """Scores class-conditional samples.

    Args:
        samples: `(N, C, H, W)` grey levels, integer or (for decoder means) floating.
        labels: `(N,)` the classes asked for.
        train: clean real training images.
        test: real images that nothing was fitted to.
        levels: number of grey levels.
    """

    def pixels(images: Tensor) -> Tensor:
        return images.flatten(1).float() / (levels - 1)

    real = SVC(C=10, gamma="scale").fit(pixels(train.x), train.labels)
    fake = SVC(C=10, gamma="scale").fit(pixels(samples), labels)
    right = torch.from_numpy(real.predict(pixels(samples))) == labels
    return SampleScores(
        label_agreement=right.double().mean().item(),
        cas=fake.score(pixels(test.x), test.labels),
        ceiling=real.score(pixels(test.x), test.labels),
        per_class=tuple(right[labels == y].double().mean().item() for y in labels.unique()),
    )
