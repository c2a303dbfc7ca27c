"""How close reconstructions of held-out items are, and what no network could have done as well."""

import math
from typing import Any

import torch
from torch import Tensor

from vqtrain.data import Dataset, photos
from vqtrain.data.rules import RULES
from vqtrain.exhibits import WEIGHTS, interpolation_sheet, pairs_of_a_class, reconstruction_sheet
from vqtrain.measure.subject import Subject
from vqtrain.metrics.fidelity import fidelity
from vqtrain.metrics.patches import through_patches
from vqtrain.models.tokenizer import Codes


@torch.no_grad()
def measure_reconstructions(subject: Subject, skipped: dict[str, str]) -> dict[str, Any]:
    """PSNR, SSIM and their floor on the test split, and pictures of the first items."""
    if subject.config.tokenizer.kind == "identity":
        skipped["reconstructions"] = "codes that are the levels themselves keep everything"
        return {}
    items, coded = subject.split("test")
    means = torch.cat(
        [
            subject.tokenizer.likelihood.mean(
                subject.tokenizer.decode(
                    tuple(level[rows] for level in coded.codes), items.labels[rows]
                )
            ).cpu()
            for rows in torch.arange(len(items.labels)).split(subject.config.eval.batch_size)
        ]
    )
    reconstruction_sheet(subject.run / "reconstructions.png", subject.dataset, means)
    _interpolations(subject, items.labels, coded.codes)
    return {
        **closeness(subject.config.data.name, subject.dataset, means),
        **read_by_rule(subject.config.data.name, subject.dataset, means),
        **_patch_floor(subject, skipped),
    }


def _interpolations(subject: Subject, labels: Tensor, codes: Codes) -> None:
    """Mixes the vectors of all levels alike."""
    pairs, model = pairs_of_a_class(subject.dataset.test.labels), subject.tokenizer
    if not len(pairs):
        return
    first, second = (model.vectors(tuple(c[pairs[:, end]] for c in codes)) for end in (0, 1))
    between = []
    for weight in WEIGHTS:
        mixed = tuple(torch.lerp(*ends, weight) for ends in zip(first, second, strict=True))
        parameters = model.decode_vectors(mixed, labels[pairs[:, 0]])
        between.append(model.likelihood.mean(parameters))
    path = subject.run / "interpolations.png"
    interpolation_sheet(path, torch.stack(between, 1).cpu(), subject.dataset, pairs)


def closeness(name: str, dataset: Dataset, means: Tensor) -> dict[str, Any]:
    """PSNR and SSIM of decoded test items, `(N, C, *size)` on the CPU.

    Args:
        name: of the data set; crops of photographs are also measured picture by picture.
        dataset: whose test split was decoded.
        means: decoder means.
    """
    test = dataset.test
    groups = (
        {photos.NAMES[row]: test.rows == row for row in test.rows.unique().tolist()}
        if name == "photos"
        else {}
    )
    found = fidelity(means, test.x, dataset.signal.levels, groups)
    return {
        "psnr": found.psnr,
        "psnr_by_group": found.psnr_by_group,
        "ssim": found.ssim,
        "ssim_window": found.ssim_window,
    }


def read_by_rule(name: str, dataset: Dataset, means: Tensor) -> dict[str, Any]:
    """Share of reconstructions, and of real test items, whose factors a rule reads correctly."""
    if name not in RULES:
        return {}
    test = dataset.test
    return {
        "rules_decoded": RULES[name].accuracy(means, test.labels),
        "rules_real": RULES[name].accuracy(test.x, test.labels),
    }


def _patch_floor(subject: Subject, skipped: dict[str, str]) -> dict[str, Any]:
    """PSNR of k-means on raw patches, with the tokenizer's own numbers of codes and grids.

    Each of several codes of one cell codes what the ones before it have left, as levels do.
    """
    signal, store = subject.dataset.signal, subject.store
    if signal.ndim != 2:
        skipped["psnr_patches"] = "for pictures"
        return {}
    levels = [
        (signal.size[0] // grid[0], size)
        for grid, size in zip(store.grids, store.num_embeddings, strict=True)
        for _ in range(math.prod(grid[signal.ndim :]))
    ]
    train = subject.dataset.clean_train(subject.config.eval.train_items).x
    for side, size in levels:
        patches = len(train) * math.prod(length // side for length in signal.size)
        if patches < size:
            skipped["psnr_patches"] = f"needs {size} training patches, one per code, got {patches}"
            return {}
    sides, sizes = zip(*levels, strict=True)
    decoded = through_patches(train, subject.dataset.test.x, sides, sizes, subject.config.seed)
    found = closeness(subject.config.data.name, subject.dataset, decoded)
    if math.isinf(found["psnr"]):
        skipped["psnr_patches"] = "as many patches as there are codes keep everything"
        return {}
    return {"psnr_patches": found["psnr"], "psnr_patches_by_group": found["psnr_by_group"]}
