"""The table of docs/trust.md, from the results of the last run."""

from __future__ import annotations

import json

from benchmarks import words
from benchmarks.results import FOLDER

PATH = FOLDER / "trust.json"


def trust() -> str:
    run = json.loads(PATH.read_text())
    names = list(run["versions"])
    table = [
        [probe, *(_cell(outcomes[name]) for name in names)]
        for probe, outcomes in run["probes"].items()
    ]
    versions = ", ".join(run["versions"].values())
    caption = f"\n\n{versions}; torch on a CPU, commit {run['commit']}."
    return words.markdown(["probe", *names], table) + caption


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
