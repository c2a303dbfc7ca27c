"""Stage 2: turn every item into its grids of codes.

    vqk extract runs/digits

Reads RUN/tokenizer. Writes the code store RUN/codes (see `vqtrain.codes`): several draws of every
training item, one of every held-out item. Killed at any moment, it goes on with the shard it was
at. Under torchrun the ranks share the shards. Before the store is complete, a batch of every
shard is read back from disk, encoded again and decoded.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor

from vqtrain import codes
from vqtrain.codes import CodeSet, Shard, StoreHeader
from vqtrain.config import RunConfig, parse
from vqtrain.data import Dataset, Split, load_dataset, provenance
from vqtrain.models.likelihood import NoLikelihoodError
from vqtrain.models.tokenizer import Tokenizer
from vqtrain.runtime import stage, start
from vqtrain.train_tokenizer import load_tokenizer

# An item's code may flip where two codes are equally near but for rounding: between machines, and
# between a shard that an earlier call wrote and this one.
FLIPS = 0.005
ROUNDING = 1e-4  # relative, of an item's nats


def extract(config: RunConfig, run: Path) -> None:
    """Encodes all splits with the run's tokenizer.

    Raises:
        ValueError: if the tokenizer is of other data or classes, `extract.draws` are more than
            there are, or what is on disk does not decode to the items.
    """
    accelerator = start(config)
    with stage("extract", run) as note:
        dataset = load_dataset(config.data, config.seed)
        model, facts = load_tokenizer(config, run)
        if model.signal != dataset.signal:
            raise ValueError(
                f"the data must be {model.signal}, on which the tokenizer was trained, got "
                f"{dataset.signal}: run `vqk train tokenizer {run} --resume never`"
            )
        model.to(accelerator.device)
        header = store_header(config, dataset, model, facts["fingerprint"])

        def encode(split: str, rows: Tensor, draws: Tensor) -> CodeSet:
            return encode_items(model, items_of(dataset, split, rows, draws), draws)

        folder, shards = run / "codes", list(header.shards())
        written = codes.write(
            folder, header, encode, accelerator.process_index, accelerator.num_processes
        )
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            for shard in shards:
                verify(folder, header, shard, model, dataset)
            codes.write_manifest(folder, header)
        accelerator.wait_for_everyone()
        grids = ", ".join(
            f"{'x'.join(map(str, grid))} of K = {k}"
            for grid, k in zip(header.grids, header.num_embeddings, strict=True)
        )
        note["result"] = (
            f"{sum(shard.end - shard.first for shard in shards)} items to codes {grids}; "
            f"{written} of {len(shards)} shards written"
        )


def store_header(
    config: RunConfig, dataset: Dataset, model: Tokenizer, fingerprint: str
) -> StoreHeader:
    """What the store of a run will be of."""
    return StoreHeader(
        tokenizer=fingerprint,
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


def items_of(dataset: Dataset, split: str, rows: Tensor, draws: Tensor) -> Split:
    """Items by their numbers in a split."""
    if split == "train":
        return dataset.train.batch(rows, draws)
    held_out: Split = getattr(dataset, split)
    return held_out.take(rows)


@torch.no_grad()
def encode_items(model: Tokenizer, items: Split, draws: Tensor) -> CodeSet:
    """The codes of items, on the CPU."""
    levels = model.encode(items.x.to(_device(model)))
    return CodeSet(tuple(level.cpu() for level in levels), items.labels, items.rows, draws)


@torch.no_grad()
def verify(
    folder: Path, header: StoreHeader, shard: Shard, model: Tokenizer, dataset: Dataset
) -> None:
    """Reads the first batch of a shard back and holds it to the items that it should be of.

    Encoding the items again must give the stored codes, and decoding the stored codes the same
    likelihood as the tokenizer's own forward pass.

    Args:
        folder: of the store.
        header: of the store.
        shard: to read.
        model: the store's tokenizer, in eval mode.
        dataset: the store's items.

    Raises:
        ValueError: if they differ by more than rounding.
    """
    path = folder / shard.file
    rows, draws = next(shard.batches(header.batch_size))
    items = items_of(dataset, shard.split, rows, draws)
    stored = codes.read_shard(path).take(torch.arange(len(rows))).long()
    expected = encode_items(model, items, draws)
    pairs = list(zip(stored.codes, expected.codes, strict=True))
    flips = sum((one != other).sum().item() for one, other in pairs)
    share = flips / sum(one.numel() for one, _ in pairs)
    if share > FLIPS or not all(map(torch.equal, stored[1:], expected[1:])):
        raise ValueError(
            f"{path} must hold the codes of its items, got {share:.1%} other codes: the data has "
            f"changed, delete {folder} and run `vqk extract` again"
        )
    x, labels, _ = items.to(_device(model))
    try:
        decoded = model.nll(x, labels, stored.to(_device(model)).codes)
    except NoLikelihoodError:
        return
    if flips:
        return
    forward = model(x, labels).nll
    if not torch.allclose(decoded, forward, rtol=ROUNDING, atol=0):
        difference = (decoded - forward).abs().max().item()
        raise ValueError(
            f"decoding the codes of {path} must give the likelihood of the tokenizer's forward "
            f"pass, got one that differs by {difference:g} nats"
        )


def _device(model: Tokenizer) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    extract(*parse(sys.argv[1:] if argv is None else argv, "extract"))


if __name__ == "__main__":
    main()
