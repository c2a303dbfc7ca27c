"""Stage 2: turn every image into its grid of codes.

    vqk extract runs/digits

Reads RUN/tokenizer. Writes the code store RUN/codes (see `vqtrain.codes`).
"""

import sys
from pathlib import Path

import torch

from vqtrain import codes
from vqtrain.codes import CodeSet, CodeStore
from vqtrain.config import RunConfig, parse
from vqtrain.metrics.ledger import code_usage
from vqtrain.runtime import stage, start
from vqtrain.train_tokenizer import load_dataset, load_tokenizer

BATCH = 1024


@torch.no_grad()
def extract(config: RunConfig, run: Path) -> None:
    """Encodes all splits with the run's tokenizer."""
    device = start(config).device
    with stage("extract", run) as note:
        dataset = load_dataset(config)
        model, header = load_tokenizer(config, run)
        model.to(device)
        splits = {}
        for name in ("train", "validation", "test"):
            images = getattr(dataset, name)
            grids = [model.encode(batch.to(device)).cpu() for batch in images.images.split(BATCH)]
            splits[name] = CodeSet(torch.cat(grids), images.labels, images.rows)
        store = CodeStore(
            splits,
            num_embeddings=model.config.num_embeddings,
            num_labels=dataset.num_labels,
            class_names=dataset.class_names,
            tokenizer=header["fingerprint"],
        )
        codes.write(run / "codes", store)
        usage = code_usage(splits["test"].codes, store.num_embeddings)
        note["result"] = (
            f"{sum(len(split.codes) for split in splits.values())} images to "
            f"{store.grid[0]}x{store.grid[1]} codes, K = {store.num_embeddings}, "
            f"held-out usage {usage.used:.0%}, perplexity {usage.perplexity:.1f}"
        )


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    extract(*parse(sys.argv[1:] if argv is None else argv, "extract"))


if __name__ == "__main__":
    main()
