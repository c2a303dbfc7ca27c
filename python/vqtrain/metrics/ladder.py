"""The ladder: bits/dim of simple pixel models on the same split, for a code model to pass.

    uniform                 log2(levels)
    independent             one histogram per pixel
    class_independent       one histogram per pixel and class
    autoregressive          softmax regression of each pixel on all earlier ones
    class_autoregressive    the same with the class

All are fitted on the clean training images; smoothing and penalty are chosen on validation; the
test images are read once, at the end. The regressions have levels * dims^2 weights, so the ladder
is for small pictures.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.data.dataset import Dataset, Split
from vqtrain.metrics.ledger import BITS
from vqtrain.models.tokenizer import Signal

SMOOTHING = (0.03, 0.1, 0.3, 1.0)
PENALTIES = (0.3, 1.0)
MOST_DIMS = 256
MOST_LEVELS = 32


# A fitted rung: images to the probability of each of their pixels, (N, P).
Probabilities = Callable[[Split], Tensor]


def unfit(signal: Signal) -> str | None:
    """Why there is no ladder for this signal; None if there is one."""
    if signal.dims <= MOST_DIMS and signal.levels <= MOST_LEVELS:
        return None
    return (
        f"for at most {MOST_DIMS} dimensions of {MOST_LEVELS} levels, "
        f"got {signal.dims} of {signal.levels}"
    )


def ladder(dataset: Dataset) -> dict[str, float]:
    """Bits/dim of every rung on the test split; the images are taken on the CPU.

    Without classes, the class-conditional rungs equal those without a class.
    """
    train, classes = dataset.clean_train(), len(dataset.class_names)
    rungs = {
        "independent": _best_histogram(train, dataset, 1),
        "class_independent": _best_histogram(train, dataset, classes),
        "autoregressive": _best_regression(train, dataset, 1),
        "class_autoregressive": _best_regression(train, dataset, classes),
    }
    bits = {name: _bits(rung(dataset.test)) for name, rung in rungs.items()}
    return {"uniform": math.log2(dataset.signal.levels), **bits}


def _best_histogram(train: Split, dataset: Dataset, classes: int) -> Probabilities:
    """Histograms per pixel (and class), with the add-a smoothing that is best on validation."""
    models = [_histogram(train, dataset.signal.levels, classes, a) for a in SMOOTHING]
    return min(models, key=lambda model: _bits(model(dataset.validation)))


def _histogram(train: Split, levels: int, classes: int, smoothing: float) -> Probabilities:
    pixels = F.one_hot(train.x.flatten(1).long(), levels).double()  # (N, P, levels)
    groups = _group(train, classes)
    counts = torch.zeros(classes, *pixels.shape[1:], dtype=torch.float64).index_add_(
        0, groups, pixels
    )
    table = (counts + smoothing) / (counts + smoothing).sum(-1, keepdim=True)

    def probabilities(images: Split) -> Tensor:
        chosen = table[_group(images, classes)]
        return chosen.gather(-1, images.x.flatten(1).long()[..., None])[..., 0]

    return probabilities


def _best_regression(train: Split, dataset: Dataset, classes: int) -> Probabilities:
    """Softmax regression of every pixel, with the penalty that is best on validation."""
    models = [_regression(train, dataset.signal.levels, classes, penalty) for penalty in PENALTIES]
    return min(models, key=lambda model: _bits(model(dataset.validation)))


def _regression(train: Split, levels: int, classes: int, penalty: float) -> Probabilities:
    """p(x_i = l) = softmax_l(W_i f + b_i) with f = pixels 0 .. i - 1 (and the class)."""
    features, pixels = _features(train, levels, classes), train.x.flatten(1).long()
    count, size = pixels.shape[1], features.shape[1]
    sees = torch.ones(count, 1, size)
    sees[:, 0, :count] = torch.ones(count, count).tril(-1)
    weight = torch.zeros(count, levels, size, requires_grad=True)
    bias = torch.zeros(count, levels, requires_grad=True)

    def logits(inputs: Tensor) -> Tensor:
        return torch.einsum("nf,plf->npl", inputs, weight * sees) + bias

    optimizer = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        nll = F.cross_entropy(logits(features).transpose(1, 2), pixels, reduction="sum")
        loss = (nll + penalty / 2 * (weight * sees).square().sum()) / len(pixels)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)

    @torch.no_grad()
    def probabilities(images: Split) -> Tensor:
        p = logits(_features(images, levels, classes)).double().softmax(-1)
        return p.gather(-1, images.x.flatten(1).long()[..., None])[..., 0]

    return probabilities


def _features(images: Split, levels: int, classes: int) -> Tensor:
    pixels = images.x.flatten(1).float() / (levels - 1)
    if classes == 1:
        return pixels
    return torch.cat((pixels, F.one_hot(images.labels, classes).float()), dim=1)


def _bits(probabilities: Tensor) -> float:
    return (-probabilities.log().mean() * BITS).item()


def _group(images: Split, classes: int) -> Tensor:
    return images.labels if classes > 1 else torch.zeros_like(images.labels)
