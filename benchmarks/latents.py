"""What leaving codes out gains on the latents of a tokenizer while it is trained.

    python -m benchmarks.latents                                  # the preset photos
    python -m benchmarks.latents photos --tokenizer.steps 1500    # as for `vqk train tokenizer`

Trains the tokenizer, keeps it after every epoch, and searches what its encoder makes of training
crops then. A preset's own codebook is too small to leave anything out, so the codes are k-means
codes of other latents of the same epoch, as many as in the other cases.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import vqkernels as vq
from benchmarks import machine, pruning, results, timing, truth, words
from benchmarks.peers import OURS, pruned
from benchmarks.pruning import DENSE, LATENTS
from vqtrain.config import CheckpointConfig, parse
from vqtrain.data import TrainSet, load_dataset
from vqtrain.models import VQVAE
from vqtrain.train_tokenizer import train_tokenizer

N, K, ROWS_PER_CODE = 65536, 16384, 16
_CPU = torch.device("cpu")
_EFFORT = timing.Effort(rounds=15, seconds=3.0)
_CROPS = 256  # encoded at a time


class Measured(NamedTuple):
    """The search on one epoch's latents, by both contenders.

    Attributes:
        samples: seconds per call.
        wrong: rows that are not the nearest code in float64.
        visited: share of the pairs that ours looks at; None: all.
    """

    samples: dict[str, timing.Samples]
    wrong: dict[str, truth.Wrong]
    visited: float | None


def epochs(argv: list[str]) -> tuple[TrainSet, list[Path]]:
    """The training set of a run, and the tokenizer after each of its epochs."""
    config, run = parse(argv, "latents")
    train = load_dataset(config.data, config.seed).train
    kept = CheckpointConfig(keep_every=max(1, train.size // config.tokenizer.batch_size))
    train_tokenizer(dataclasses.replace(config, checkpoint=kept), run)
    return train, sorted((run / "tokenizer").glob("step-*"))


@torch.no_grad()
def latents(model: VQVAE, train: TrainSet, count: int) -> Tensor:
    """(count, D): what the encoder makes of augmented training crops, in their order."""
    made: list[Tensor] = []
    for rows in torch.arange(train.size).split(_CROPS):
        x = model.signal.scaled(train.batch(rows, torch.ones_like(rows)).x, torch.float32)
        made.append(model.encoder(x).movedim(1, -1).flatten(0, -2))
        if sum(map(len, made)) >= count:
            return torch.cat(made)[:count].contiguous()
    raise ValueError(f"the training set must make {count} latents, got {sum(map(len, made))}")


def codes(rows: Tensor, k: int) -> Tensor:
    """(K, D): the codebook that a quantizer starts with on these rows."""
    quantizer = vq.nn.VectorQuantizer(k, rows.shape[1], channel_dim=-1)
    quantizer.init_codebook(rows)
    return quantizer.codebook


def measure(x: Tensor, codebook: Tensor, effort: timing.Effort = _EFFORT) -> Measured:
    calls = {OURS: pruned.search(None)(x, codebook), DENSE: pruned.search(0)(x, codebook)}
    judge = truth.judge(x, codebook)
    wrong = {name: judge(call()) for name, call in calls.items()}
    visited = pruned.visited(x, codebook)["visited_share"]
    return Measured(timing.interleaved(calls, _CPU, effort), wrong, visited)


def rows(case: str, x: Tensor, measured: Measured, where: results.Row) -> list[results.Row]:
    """One of each contender; ``where`` holds machine, commit and what else a run shares."""
    ours = measured.samples[OURS].seconds
    return [
        {
            **{"case": case, "provider": provider, **where, "n": len(x), "k": K, "d": x.shape[1]},
            "visited_share": measured.visited if provider == OURS else None,
            "seconds": results.rounded(timing.quartiles(taken.seconds)),
            "samples": len(taken.seconds),
            "times_ours": results.rounded(timing.ratios(taken.seconds, ours)),
            "wrong_rows": measured.wrong[provider].rows,
            "other_ties": measured.wrong[provider].ties,
        }
        for provider, taken in measured.samples.items()
    ]


def main(argv: list[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    source, *options = given or ["photos"]
    threads = machine.default_threads()
    train, kept = epochs([source, "--out", f"runs/latents-{Path(source).stem}", *options])
    machine.limit_threads(threads)
    made: list[results.Row] = []
    for number, folder in enumerate(kept, 1):
        found = latents(VQVAE.from_pretrained(folder), train, N + ROWS_PER_CODE * K)
        x = found[:N]
        measured = measure(x, codes(found[N:], K))
        case = f"{Path(source).stem}, epoch {number}: {N}, {K}, {x.shape[1]}"
        made += rows(case, x, measured, machine.where(_CPU, threads))
    results.save(LATENTS, "cpu", made)
    print(words.columns([pruning.LATENTS_HEADINGS, *pruning.latents_lines(made)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
