"""The data sets: which there are, and what their items look like.

    vqk data list
    vqk data preview shapes --out shapes.png

`preview` takes the fields of the configuration's data section, such as `--size [64,64]`.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import torch
from jsonargparse import ArgumentParser

from vqtrain import pictures
from vqtrain.config import explain
from vqtrain.config.fields import explanations
from vqtrain.data import BUNDLED, DataConfig, Dataset, load_dataset

ITEMS, COLUMNS, MOST_ROWS = 2000, 10, 24


def describe(dataset: Dataset) -> str:
    """Shape, levels, classes and sizes of the splits, on one line."""
    signal, classes = dataset.signal, len(dataset.class_names)
    size = "x".join(map(str, signal.size))
    held_out = f"{len(dataset.validation.x)} validation, {len(dataset.test.x)} test"
    endless = ", drawn anew every epoch" if dataset.train.draws is None else ""
    return (
        f"{size}, {signal.channels} channel{'s' * (signal.channels > 1)}, {signal.levels} levels, "
        f"{classes} class{'es' * (classes > 1)}; {dataset.train.size} train{endless}, {held_out}"
    )


def preview(dataset: Dataset, path: Path) -> None:
    """Draws the first training items of each class, or just the first ones of a set without.

    Args:
        dataset: any.
        path: PNG to write.
    """
    items = dataset.clean_train(ITEMS)
    classes = range(min(len(dataset.class_names), MOST_ROWS))
    rows = [items.x[items.labels == label][:COLUMNS] for label in classes]
    names = [dataset.class_names[label] for label in classes]
    if len(rows) == 1:
        rows = list(items.x[: COLUMNS * COLUMNS].split(COLUMNS))
        names = [""] * len(rows)
    columns = max(1, min(len(row) for row in rows))
    shown = [(name, row[:columns]) for name, row in zip(names, rows, strict=True) if len(row)]
    panel = pictures.Panel(
        "Training items", [name for name, _ in shown], torch.stack([row for _, row in shown])
    )
    pictures.sheet(path, [panel], dataset.signal.levels)


def main(argv: list[str] | None = None) -> None:
    """Lists or draws from the command line."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="vqk data", description="Which data there is.")
    parser.add_argument("what", choices=("list", "preview"))
    if parser.parse_args(argv[:1] or ["--help"]).what == "list":
        for name in BUNDLED:
            print(f"{name:<14} {describe(load_dataset(DataConfig(name=name), 0))}")
        print("folder:DIR, npy:FILE and hf:NAME are data sets of your own: see `preview --help`")
        return
    options = ArgumentParser(prog="vqk data preview")
    options.add_argument("name", help=explanations(DataConfig)["name"])
    options.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG to write")
    options.add_class_arguments(DataConfig, None, skip={"name"})
    explain(options, explanations(DataConfig))
    values = options.parse_args(argv[1:])
    config = DataConfig(**{field.name: values[field.name] for field in fields(DataConfig)})
    dataset = load_dataset(config, 0)
    print(f"{config.name}: {describe(dataset)}")
    preview(dataset, values.out)
    print(f"[data preview] {values.out}")


if __name__ == "__main__":
    main()
