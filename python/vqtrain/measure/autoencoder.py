"""A VAE: bits of its bound, latents in use, reconstructions and samples; it has no codes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtrain.config import RunConfig
from vqtrain.data import Dataset, load_dataset
from vqtrain.exhibits import WEIGHTS, interpolation_sheet, pairs_of_a_class, reconstruction_sheet
from vqtrain.measure.bits import measure_ladder
from vqtrain.measure.reconstructions import closeness, read_by_rule
from vqtrain.measure.samples import measure_samples
from vqtrain.metrics.elbo import elbo_ledger
from vqtrain.models import VAE
from vqtrain.sample import load_samples
from vqtrain.train_tokenizer import load_vae


@torch.no_grad()
def measure_autoencoder(
    config: RunConfig, run: Path, device: torch.device, skipped: dict[str, str]
) -> dict[str, Any]:
    """Everything there is to measure of a VAE; see `vqtrain.evaluate` for the keys."""
    dataset = load_dataset(config.data, config.seed)
    model, header = load_vae(config, run)
    model.to(device)
    items = {
        "train": dataset.clean_train(config.eval.train_items),
        "validation": dataset.validation,
        "test": dataset.test,
    }
    ledgers = {name: elbo_ledger(model, split.to(device)) for name, split in items.items()}
    test = asdict(ledgers["test"])
    means = _decoded(model, dataset, config.eval.batch_size, device)
    reconstruction_sheet(run / "reconstructions.png", dataset, means)
    _interpolations(run / "interpolations.png", model, dataset, device)
    return {
        "decoder_conditional": model.config.class_conditional and len(dataset.class_names) > 1,
        "test_images": len(dataset.test.labels),
        **{key: value for key, value in test.items() if key != "items"},
        "standard_error_bpd": test["total_standard_error"],
        "ledger": {name: asdict(part) for name, part in ledgers.items()},
        **measure_ladder(dataset, skipped),
        **closeness(config.data.name, dataset, means),
        **read_by_rule(config.data.name, dataset, means),
        **measure_samples(run, config, dataset, load_samples(run, []), skipped),
        "tokenizer_best_step": header["facts"]["step"],
    }


def _decoded(model: VAE, dataset: Dataset, batch_size: int, device: torch.device) -> Tensor:
    """Decoder means of the test split, at the means of the posterior."""
    parts = []
    for rows in torch.arange(len(dataset.test.labels)).split(batch_size):
        batch = dataset.test.take(rows).to(device)
        parameters = model.decode(model.posterior(batch.x)[0], batch.labels)
        parts.append(model.likelihood.mean(parameters).cpu())
    return torch.cat(parts)


def _interpolations(path: Path, model: VAE, dataset: Dataset, device: torch.device) -> None:
    pairs = pairs_of_a_class(dataset.test.labels)
    if not len(pairs):
        return
    first, second = (dataset.test.take(pairs[:, column]).to(device) for column in (0, 1))
    start, end = (model.posterior(items.x)[0] for items in (first, second))
    between = [
        model.likelihood.mean(model.decode(torch.lerp(start, end, weight), first.labels))
        for weight in WEIGHTS
    ]
    interpolation_sheet(path, torch.stack(between, 1).cpu(), dataset, pairs)
