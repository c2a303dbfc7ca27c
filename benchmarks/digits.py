"""The ledger of the demo's run, from the metrics that it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks import words
from benchmarks.machine import ROOT
from benchmarks.results import FOLDER

_METRICS = FOLDER / "digits.json"
_LINES = (
    ("total", "total_bpd", "bits/dim"),
    ("reconstruction", "recon_bpd", "bits/dim"),
    ("prior (PixelCNN)", "prior_bpd", "bits/dim"),
    ("codes under a unigram prior", "unigram_bpd", "bits/dim"),
    ("codes under a uniform prior", "uniform_bpd", "bits/dim"),
    ("ladder: class-conditional independent pixels", "ladder_class_bpd", "bits/dim"),
    ("codes K", "K", ""),
    ("usage (share of codes), ceiling", "usage", ""),
    ("perplexity", "perplexity", "codes"),
    ("samples that a classifier reads as their class", "label_agreement", ""),
    ("classifier trained on samples, tested on real digits", "cas", ""),
)


def ledger() -> str:
    metrics = json.loads(_METRICS.read_text())
    table = []
    for label, key, unit in _LINES:
        value = metrics[key]
        text = str(value) if isinstance(value, int) else f"{value:.3f}"
        if key == "usage":
            text += f", {metrics['usage_ceiling']:.3f}"
        table.append([label, f"{text} {unit}".rstrip()])
    return words.markdown(["quantity", "value"], table)


def take_over(run: Path) -> None:
    """Makes metrics and picture of a run the published ones."""
    shutil.copyfile(run / "metrics.json", _METRICS)
    shutil.copyfile(run / "samples.png", ROOT / "docs" / "images" / "samples.png")
