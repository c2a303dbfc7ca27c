"""Stage 2: turn every item into its grids of codes.

    vqk extract runs/digits

Reads RUN/tokenizer. Writes the code store RUN/codes (see `vqtrain.codes`): several draws of every
training item, one of every held-out item. Killed at any moment, it goes on where it was.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from vqtrain import codes
from vqtrain.codes import CodeSet, StoreHeader
from vqtrain.config import RunConfig, parse
from vqtrain.data import Dataset, Split, load_dataset, provenance
from vqtrain.runtime import stage, start
from vqtrain.train_tokenizer import load_tokenizer


def extract(config: RunConfig, run: Path) -> None:
    """Encodes all splits with the run's tokenizer."""
    accelerator = start(config)
    with stage("extract", run) as note:
        dataset = load_dataset(config.data, config.seed)
        model, facts = load_tokenizer(config, run)
        model.to(accelerator.device)
        header = StoreHeader(
            tokenizer=facts["fingerprint"],
            num_embeddings=model.codebook_sizes,
            grids=model.code_grids,
            num_labels=dataset.signal.num_labels,
            class_names=dataset.class_names,
            items={
                "train": dataset.train.size,
                "validation": len(dataset.validation.x),
                "test": len(dataset.test.x),
            },
            train_draws=config.extract.train_draws(dataset.train.draws),
            shard_items=config.extract.shard_items,
            batch_size=config.extract.batch_size,
            data=provenance(config.data, config.seed),
        )

        @torch.no_grad()
        def encode(split: str, rows: Tensor, draws: Tensor) -> CodeSet:
            items = items_of(dataset, split, rows, draws)
            levels = model.encode(items.x.to(accelerator.device))
            return CodeSet(tuple(level.cpu() for level in levels), *items[1:], draws)

        written = codes.write(run / "codes", header, encode)
        codes.write_manifest(run / "codes", header)
        note["result"] = f"{written} shards written"


def items_of(dataset: Dataset, split: str, rows: Tensor, draws: Tensor) -> Split:
    """Items by their numbers in a split."""
    if split == "train":
        return dataset.train.batch(rows, draws)
    held_out: Split = getattr(dataset, split)
    return held_out.take(rows)


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    extract(*parse(sys.argv[1:] if argv is None else argv, "extract"))


if __name__ == "__main__":
    main()
