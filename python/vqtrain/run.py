"""The whole chain: train tokenizer, extract, train prior, sample, eval, report.

    vqk run digits --out runs/try --tokenizer.steps 200 --prior.steps 200
    vqk run digits-table --jobs 2

Called again on an interrupted run, it goes on: trainings from their last checkpoint, extraction
from its last shard. What has finished with the same settings is not made again. A table is many
such runs, see `vqtrain.table`.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vqtrain import table
from vqtrain.config import RESUME, RunConfig, parse, take_options
from vqtrain.evaluate import evaluate
from vqtrain.extract import extract
from vqtrain.report import report
from vqtrain.runtime import fresh, is_first_rank, keep_inputs, start
from vqtrain.sample import sample
from vqtrain.train_prior import train_prior
from vqtrain.train_tokenizer import train_tokenizer

STAGES = (train_tokenizer, extract, train_prior, sample, evaluate, report)
WITHOUT_CODES = (train_tokenizer, sample, evaluate, report)  # the VAE has no codes and no prior

# Of the stages that are not trainings: the name, the file that is written last, and the models
# that it is made from.
MADE = {
    extract: ("extract", "codes/manifest.json", "tokenizer"),
    sample: ("sample", "samples/samples.json", "*"),
    evaluate: ("eval", "metrics.json", "*"),
    report: ("report", "report.html", "*"),
}


def run(config: RunConfig, folder: Path, resume: str = "auto") -> None:
    """Runs every stage in order; each starts from the files and the seed, as if it ran alone.

    Args:
        config: of all stages.
        folder: run folder.
        resume: `auto` goes on with trainings that were interrupted, `never` trains anew.
    """
    begin = time.perf_counter()
    device, first = start(config).device, is_first_rank()
    if first:
        print(f"[run] {folder} on {device}, {torch.get_num_threads()} threads, seed {config.seed}")
    for chained in WITHOUT_CODES if config.tokenizer.kind == "vae" else STAGES:
        if chained in (train_tokenizer, train_prior):
            chained(config, folder, resume=resume)
            continue
        if chained is not extract and not first:
            continue  # ranks share what is long; the rest is made by one
        name, artifact, models = MADE[chained]
        inputs = _inputs(config, folder, models)
        if fresh(name, folder, inputs) and (folder / artifact).is_file():
            if first:
                print(f"[{name}] was made before from the same models and settings")
            continue
        chained(config, folder)
        if first:
            keep_inputs(name, folder, inputs)
    if first:
        print(f"[run] done in {time.perf_counter() - begin:.1f} s: open {folder / 'report.html'}")


def _inputs(config: RunConfig, folder: Path, models: str) -> dict[str, Any]:
    """What decides the result of a stage that is no training: settings and fingerprints."""
    settings = asdict(config)
    for name in ("log", "checkpoint"):  # how trainings are watched and interrupted
        del settings[name]
    fingerprints = {
        path.parent.name: json.loads(path.read_text())["fingerprint"]
        for path in sorted(folder.glob(f"{models}/config.json"))
    }
    return {"settings": settings, "models": fingerprints}


def main(argv: list[str] | None = None) -> None:
    """Runs the chain, or a table of runs, from the command line."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in table.tables():
        table.main(argv)
        return
    options, rest = take_options(argv, RESUME)
    run(*parse(rest, "run"), options["resume"])


if __name__ == "__main__":
    main()
