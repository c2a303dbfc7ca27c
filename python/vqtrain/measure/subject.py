"""What is measured: the models, data, codes and samples of a run, loaded and found to match."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqtrain import codes
from vqtrain.codes import CodeSet, CodeStore
from vqtrain.config import RunConfig
from vqtrain.data import Dataset, Split, load_dataset
from vqtrain.models.tokenizer import Tokenizer
from vqtrain.priors.prior import Prior
from vqtrain.sample import load_samples
from vqtrain.train_prior import load_prior
from vqtrain.train_tokenizer import load_tokenizer


class Subject(NamedTuple):
    """A run with codes.

    Attributes:
        run: its folder, which gets the pictures.
        config: what it was told.
        dataset: on the CPU.
        tokenizer: on `device`, in eval mode.
        priors: one per level, top first, on `device`, in eval mode.
        store: the codes.
        samples: `labels`, `means` and, where the decoder has a likelihood, `drawn`; on the CPU.
        device: where models are evaluated.
        best_steps: steps at which tokenizer and priors were kept, as keys of the metrics.
    """

    run: Path
    config: RunConfig
    dataset: Dataset
    tokenizer: Tokenizer
    priors: Sequence[Prior]
    store: CodeStore
    samples: dict[str, Tensor]
    device: torch.device
    best_steps: dict[str, Any]

    def split(self, name: str) -> tuple[Split, CodeSet]:
        """Items of a split and their codes, on the device; of training items the first ones.

        Raises:
            ValueError: if the codes are of other rows.
        """
        if name == "train":
            limit = self.config.eval.train_items
            items, coded = self.dataset.clean_train(limit), self.store.clean_train(limit)
        else:
            items, coded = getattr(self.dataset, name), self.store.splits[name]
        if not torch.equal(items.rows, coded.rows):
            raise ValueError(
                f"codes of {name} must be of the same rows as its items, got others: "
                f"run `vqk extract {self.run}` again"
            )
        return items.to(self.device), coded.to(self.device)


def load(config: RunConfig, run: Path, device: torch.device) -> Subject:
    """Loads everything that the stages before wrote.

    Raises:
        FileNotFoundError, ValueError: if something is missing, damaged, or of another model.
    """
    tokenizer, header = load_tokenizer(config, run)
    store = codes.read(run / "codes", header["fingerprint"])
    loaded = [
        load_prior(config, run, header["fingerprint"], level) for level in range(len(store.grids))
    ]
    kept = [prior_header["facts"]["step"] for _, prior_header in loaded]
    return Subject(
        run=run,
        config=config,
        dataset=load_dataset(config.data, config.seed),
        samples=load_samples(run, [found["fingerprint"] for _, found in loaded]),
        tokenizer=tokenizer.to(device),
        priors=[prior.to(device) for prior, _ in loaded],
        store=store,
        device=device,
        best_steps={
            "tokenizer_best_step": header["facts"]["step"],
            "prior_best_step": kept[0],
            "prior_best_steps": kept,
        },
    )
