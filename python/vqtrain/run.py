"""The whole chain: train tokenizer, extract, train prior, sample, eval, report.

vqk run digits --out runs/try --tokenizer.steps 200 --prior.steps 200
"""

import sys
import time
from pathlib import Path

import torch

from vqtrain.config import RunConfig, parse
from vqtrain.evaluate import evaluate
from vqtrain.extract import extract
from vqtrain.report import report
from vqtrain.runtime import start
from vqtrain.sample import sample
from vqtrain.train_prior import train_prior
from vqtrain.train_tokenizer import train_tokenizer

STAGES = (train_tokenizer, extract, train_prior, sample, evaluate, report)


def run(config: RunConfig, folder: Path) -> None:
    """Runs every stage in order; each starts from the files and the seed, as if it ran alone."""
    begin = time.perf_counter()
    device = start(config).device
    print(f"[run] {folder} on {device}, {torch.get_num_threads()} threads, seed {config.seed}")
    for chained in STAGES:
        chained(config, folder)
    print(f"[run] done in {time.perf_counter() - begin:.1f} s: open {folder / 'report.html'}")


def main(argv: list[str] | None = None) -> None:
    """Runs the chain from the command line."""
    run(*parse(sys.argv[1:] if argv is None else argv, "run"))


if __name__ == "__main__":
    main()
