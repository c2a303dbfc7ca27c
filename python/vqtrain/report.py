"""Stage 6: one self-contained page about a run.

    vqk report runs/digits

Reads RUN/metrics.json, the pictures, the logs and RUN/config.yaml. Writes one RUN/curve-*.png for
each model that was trained, and RUN/report.html, with the pictures inside it, so the file can be
mailed and needs no network. A section is there if it was measured.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

from vqtrain import pictures
from vqtrain.config import RunConfig, parse
from vqtrain.files import read_json
from vqtrain.page import (
    Section,
    folded,
    listing,
    note,
    picture,
    side_by_side,
    table,
    tiles,
    write_page,
)
from vqtrain.report_tables import (
    bits_tables,
    code_rows,
    headline,
    key_figures,
    ladder_rows,
    neighbour_rows,
    quality_rows,
    reconstruction_rows,
)
from vqtrain.runtime import stage, stage_seconds

TITLES = {"vae": "VAE: reconstruction and KL"}


def report(config: RunConfig, run: Path) -> None:
    """Draws the loss curves and writes the page."""
    with stage("report", run) as stage_note:
        metrics = read_json(run / "metrics.json", made_by=f"vqk eval {run}")
        write_page(
            run / "report.html",
            page_title(run),
            headline(metrics),
            sections(run, metrics),
            metrics["warnings"],
        )
        stage_note["result"] = str(run / "report.html")


def page_title(run: Path) -> str:
    """Of the page: the run folder's name; in a table, whose runs are ROW/seed-N, row and seed."""
    folder = run.resolve()
    seed = folder.name.removeprefix("seed-")
    return f"{folder.parent.name}, seed {seed}" if seed.isdecimal() else folder.name


def sections(run: Path, m: dict[str, Any]) -> list[Section]:
    """Everything on the page; a section that was not measured has no body."""
    seconds = [(name, f"{s:.1f} s") for name, s in stage_seconds(run).items()]
    skipped = [(name, reason) for name, reason in m["skipped"].items()]
    return [
        Section("", tiles(key_figures(m))),
        Section("Samples", _samples(run)),
        Section("Reconstructions", _reconstructions(run, m)),
        Section("Bits per dimension", _bits(m)),
        Section("Codes", _codes(run, m)),
        Section("Quality of the samples", _quality(run, m)),
        Section("Training", side_by_side(*_curves(run, m))),
        Section(
            "The run",
            table(("stage", "time"), seconds)
            + listing("Not measured", skipped)
            + folded("Configuration", (run / "config.yaml").read_text()),
        ),
    ]


def _samples(run: Path) -> str:
    sampler = run / "samples" / "samples.json"
    facts = json.loads(sampler.read_text()) if sampler.is_file() else {}
    keys = ("temperature", "top_k", "top_p", "guidance", "seed")
    settings = ", ".join(f"{k.replace('_', '-')} {facts[k]}" for k in keys if k in facts)
    return picture(
        run / "samples.png",
        "Uncurated samples, one row for each class",
        f"The first samples of each class, none selected ({settings}).",
    ) + picture(
        run / "completions.png",
        "Held-out items, the half that was given, and what the prior made of the rest",
        "The codes of the first half are those of a held-out item; the prior draws the others.",
    )


def _reconstructions(run: Path, m: dict[str, Any]) -> str:
    return side_by_side(
        picture(run / "reconstructions.png", "Held-out items above their reconstructions"),
        picture(
            run / "interpolations.png",
            "Decoded items between two held-out ones",
            "The vectors of two held-out items of a class, mixed and decoded.",
        ),
    ) + table(("decoder means", "PSNR", "k-means on patches", "SSIM"), reconstruction_rows(m))


def _bits(m: dict[str, Any]) -> str:
    told = _told(m)
    if "kl_bpd" in m:
        text = (
            "A held-out item costs the bits that tell its latents from the standard normal, and "
            f"the bits of the item given them: a bound, as the sum for codes is. {told}"
        )
    else:
        text = (
            "A held-out item costs the bits of its codes under the prior, and the bits of the "
            f"item given its codes. {told} Uniform, unigram and zstd are other ways to send the "
            "same codes."
        )
    rungs = table(("the same items under", "bits/dim"), ladder_rows(m))
    return note(text) + "".join(bits_tables(m)) + rungs


def _told(m: dict[str, Any]) -> str:
    """What of the model knows the class, on which every bit depends."""
    told = [name for name in ("decoder", "prior") if m.get(f"{name}_conditional")]
    return f"Told the class: {' and '.join(told)}." if told else "Nothing is told a class."


def _codes(run: Path, m: dict[str, Any]) -> str:
    charts = [
        picture(run / f"usage-{level}.png", f"How often each code of level {level} occurs")
        for level in range(len(m.get("levels", ())))
    ]
    head = ("level", "K", "held-out codes", "used", "at most", "perplexity")
    return side_by_side(*charts) + table(head, code_rows(m))


def _quality(run: Path, m: dict[str, Any]) -> str:
    return table(("", "samples", "real items"), quality_rows(m)) + side_by_side(
        picture(
            run / "neighbours.png",
            "Distances to the nearest training item of samples, held-out and training items",
            "Samples much closer to the training items than held-out items are would be copies. "
            "Entries are drawn from the decoder: its means are close to everything.",
        ),
        table(
            ("nearest training item", "5 %", "median", "95 %"),
            neighbour_rows(m),
        ),
    )


def _curves(run: Path, m: dict[str, Any]) -> list[str]:
    """One chart for each model that left a log; the folder may have priors of an earlier run."""
    found = []
    priors = (run / f"prior-{level}" for level in range(len(m.get("levels", ()))))
    for folder in (run / "tokenizer", *priors):
        if not (folder / "log.jsonl").is_file():
            continue
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        title, unit, references = _of_model(folder.name, m)
        chart = pictures.Curve(
            title,
            unit,
            [line["step"] for line in lines],
            [_number(line.get("train", line["loss"])) for line in lines],
            [_number(line["validation"]) for line in lines],
            references,
        )
        path = run / f"curve-{folder.name}.png"
        pictures.curve(path, chart)
        found.append(picture(path, f"Training and validation of {folder.name}"))
    return found


def _number(logged: float | None) -> float:
    """A number of the log, which has null for one that was not finite."""
    return math.nan if logged is None else logged


def _of_model(folder: str, m: dict[str, Any]) -> tuple[str, str, dict[str, float]]:
    """Title, unit and reference lines of a model's chart."""
    if folder == "tokenizer":
        unit = "loss" if m.get("recon_bpd") is None else "bits/dim"
        return TITLES.get(m["tokenizer"], "Tokenizer: reconstruction"), unit, {}
    level = int(folder.removeprefix("prior-"))
    found = m["ledger"]["test"]["levels"][level]
    uniform = math.log2(found["num_embeddings"])
    unigram = uniform * found["unigram_bpd"] / found["uniform_bpd"]
    return f"Prior of level {level}", "bits/code", {"uniform": uniform, "unigram": unigram}


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    report(*parse(sys.argv[1:] if argv is None else argv, "report"))


if __name__ == "__main__":
    main()
