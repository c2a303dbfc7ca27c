"""Samples: are they what was asked for, how far from real items, and are they copies?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vqtrain import pictures
from vqtrain.config import RunConfig
from vqtrain.data import Dataset, Split
from vqtrain.data.rules import RULES
from vqtrain.metrics.classify import score_samples
from vqtrain.metrics.distances import Distance, distances, most_features
from vqtrain.metrics.features import classifier_features, principal_components
from vqtrain.metrics.neighbours import QUANTILES, neighbours

MUCH_CLOSER = 0.8  # median distances, samples over held-out items, below which copying is likely
NAMES = {"samples": "samples", "held_out": "held-out items", "train": "training items"}


def measure_samples(
    run: Path,
    config: RunConfig,
    dataset: Dataset,
    samples: dict[str, Tensor],
    skipped: dict[str, str],
) -> dict[str, Any]:
    """Every question to the samples that fits the data.

    Args:
        run: gets a picture.
        config: names the data, and says how much is measured.
        dataset: what the samples are to be like.
        samples: `labels`, `means`, and `drawn` where the decoder can draw.
        skipped: gets the reason of what does not fit.
    """
    train = dataset.clean_train(config.eval.train_items)
    return {
        "samples": len(samples["labels"]),
        **_by_rule(config.data.name, samples),
        **_by_classifier(train, dataset, samples, skipped),
        **_by_distance(train, dataset, samples, skipped, config.eval.bootstrap),
        **_by_neighbour(run, train, dataset, samples, skipped),
    }


def _by_rule(name: str, samples: dict[str, Tensor]) -> dict[str, Any]:
    """Share of decoder means whose factors a rule reads as the class says."""
    if name not in RULES:
        return {}
    found = RULES[name].accuracy(samples["means"], samples["labels"])
    # Also one number each at the top, for tables of runs.
    return {"rules": found, **{f"rule_{factor}": share for factor, share in found.items()}}


def _by_classifier(
    train: Split, dataset: Dataset, samples: dict[str, Tensor], skipped: dict[str, str]
) -> dict[str, Any]:
    """Scores decoder means, and beside them entries drawn from the decoder."""
    if len(dataset.class_names) < 2:
        skipped["cas"] = "the data has no classes"
        return {}
    if len(train.labels.unique()) < 2:
        skipped["cas"] = "the training items measured are all of one class"
        return {}
    features = classifier_features(train.x, dataset.signal.levels)
    scores = {
        key: score_samples(samples[key], samples["labels"], train, dataset.test, features)
        for key in ("means", "drawn")
        if key in samples
    }
    means, drawn = scores["means"], scores.get("drawn")
    return {
        "classifier": f"support vector machine (RBF kernel, C = 10) on {features.name}",
        "label_agreement": means.label_agreement,
        "label_agreement_per_class": list(means.per_class),
        "cas": means.cas,
        "label_agreement_drawn": drawn.label_agreement if drawn else None,
        "cas_drawn": drawn.cas if drawn else None,
        "classifier_on_real": means.ceiling,
    }


def _by_distance(
    train: Split,
    dataset: Dataset,
    samples: dict[str, Tensor],
    skipped: dict[str, str],
    resamplings: int,
) -> dict[str, Any]:
    """Local Frechet and kernel distances of drawn items, with their floors."""
    drawn = samples.get("drawn", samples["means"])
    limit = most_features(min(len(dataset.test.labels), 2 * len(drawn)))
    if limit < 1:
        skipped["fd_local"] = f"needs 20 test items and 10 samples, got {len(drawn)} samples"
        return {}
    features = principal_components(train.x, dataset.signal.levels, limit)
    found = distances(features(drawn), features(dataset.test.x), resamplings)
    return {
        "fd_local": found.fd_local.value,
        "kernel_local": found.kernel_local.value,
        "local_distances": {
            "features": features.name,
            "items": found.items,
            "fd_local": _with_floor(found.fd_local),
            "kernel_local": _with_floor(found.kernel_local),
        },
    }


def _with_floor(distance: Distance) -> dict[str, Any]:
    return {
        "value": distance.value,
        "interval": list(distance.interval),
        "floor": distance.floor,
        "floor_interval": list(distance.floor_interval),
    }


def _by_neighbour(
    run: Path,
    train: Split,
    dataset: Dataset,
    samples: dict[str, Tensor],
    skipped: dict[str, str],
) -> dict[str, Any]:
    if "drawn" not in samples:
        skipped["neighbours"] = "decoder means are close to everything, and nothing can be drawn"
        return {}
    found = neighbours(samples["drawn"], dataset.test.x, train.x, dataset.signal.levels)
    pictures.neighbours_chart(
        run / "neighbours.png",
        [pictures.Distances(name, found.quantiles[key]) for key, name in NAMES.items()],
    )
    return {
        "neighbours": {
            "quantiles_at": list(QUANTILES),
            "quantiles": found.quantiles,
            "train_items": found.train_items,
        },
        "duplicates_of_train": found.duplicates_of_train,
        "duplicates_among_samples": found.duplicates_among_samples,
    }


def samples_warnings(m: dict[str, Any]) -> list[str]:
    """Signs of memorisation."""
    if "neighbours" not in m:
        return []
    median: Sequence[float] = [
        m["neighbours"]["quantiles"][key][QUANTILES.index(0.5)] for key in ("samples", "held_out")
    ]
    if median[0] >= MUCH_CLOSER * median[1]:
        return []
    return [
        f"drawn samples must be about as far from the training items as held-out items are "
        f"(median {median[1]:.2f}), got {median[0]:.2f}: they may be memorised"
    ]
