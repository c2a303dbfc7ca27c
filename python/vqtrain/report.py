"""Stage 6: one self-contained page about a run.

    vqk report runs/digits

Reads RUN/metrics.json, the pictures, the logs and RUN/config.yaml. Writes RUN/curves.png and
RUN/report.html, with the pictures inside it, so the file can be mailed and needs no network.
"""

import base64
import html
import json
import math
import sys
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from vqtrain import pictures
from vqtrain.config import RunConfig, parse
from vqtrain.files import read_json, write_atomic
from vqtrain.runtime import stage, stage_seconds


def report(config: RunConfig, run: Path) -> None:
    """Draws the loss curves and writes the page."""
    with stage("report", run) as note:
        metrics = read_json(run / "metrics.json", made_by=f"vqk eval {run}")
        pictures.curves(run / "curves.png", _curves(run, metrics))
        page = resources.files("vqtrain") / "report_page.html"
        text = Template(page.read_text()).substitute(
            name=html.escape(run.name),
            total=f"{metrics['total_bpd']:.3f}",
            warnings="".join(
                f'<p class="warning">{html.escape(w)}</p>' for w in metrics["warnings"]
            ),
            ledger=_table(_ledger_rows(metrics)),
            ladder=_table([(name, f"{bits:.3f}") for name, bits in _ladder(metrics)]),
            scores=_table(_score_rows(metrics)),
            seconds=_table([(name, f"{s:.1f} s") for name, s in stage_seconds(run).items()]),
            config=html.escape((run / "config.yaml").read_text()),
            **{
                name: base64.b64encode((run / f"{name}.png").read_bytes()).decode()
                for name in ("samples", "reconstructions", "usage", "curves")
            },
        )
        write_atomic(run / "report.html", text.encode())
        note["result"] = str(run / "report.html")


def _ledger_rows(m: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        ("", "bits/dim", "what it is"),
        ("reconstruction", f"{m['recon_bpd']:.3f}", "-log2 p(x | codes, class)"),
        ("+ prior", f"{m['prior_bpd']:.3f}", "-log2 p(codes | class)"),
        ("= total", f"{m['total_bpd']:.3f}", f"standard error {m['standard_error_bpd']:.3f}"),
        ("codes, unigram", f"{m['unigram_bpd']:.3f}", "instead of the prior: code frequencies"),
        ("codes, uniform", f"{m['uniform_bpd']:.3f}", f"instead of the prior: log2 {m['K']} each"),
    ]


def _ladder(m: dict[str, Any]) -> list[tuple[str, float]]:
    """The rungs and this model, costliest first."""
    names = {
        "uniform": "uniform pixels",
        "independent": "independent pixels",
        "class_independent": "independent pixels, class known",
        "autoregressive": "softmax regression on earlier pixels",
        "class_autoregressive": "softmax regression, class known",
    }
    rungs = [(names[key], bits) for key, bits in m["ladder"].items()]
    rungs.append(("this model: codes + reconstruction, class known", m["total_bpd"]))
    return sorted(rungs, key=lambda rung: -rung[1])


def _score_rows(m: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        ("codes", f"{m['grids']}, K = {m['K']}"),
        ("codes used (ceiling)", f"{m['usage']:.1%} ({m['usage_ceiling']:.1%})"),
        ("perplexity", f"{m['perplexity']:.2f}"),
        ("prior / uniform code bits", f"{m['prior_bpd'] / m['uniform_bpd']:.1%}"),
        (
            "conditioning gap (ceiling)",
            f"{m['conditioning_gap_bits_per_image']:.2f} "
            f"({m['conditioning_gap_ceiling']:.2f}) bits/image",
        ),
        ("PSNR of reconstructions", f"{m['psnr']:.1f} dB"),
        (
            f"label agreement of {m['samples']} samples (pixels drawn)",
            f"{m['label_agreement']:.1%} ({m['label_agreement_drawn']:.1%})",
        ),
        (
            "classification accuracy score (pixels drawn)",
            f"{m['cas']:.1%} ({m['cas_drawn']:.1%})",
        ),
        ("the same classifier, trained on real digits", f"{m['classifier_on_real']:.1%}"),
    ]


def _table(rows: list[tuple[str, ...]]) -> str:
    """An HTML table; a first row whose first cell is empty is its head."""
    lines = []
    for row in rows:
        tag = "td" if row[0] else "th"
        lines.append("<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>")
    return "<table>" + "".join(lines) + "</table>"


def _curves(run: Path, m: dict[str, Any]) -> list[pictures.Curve]:
    uniform_per_code = math.log2(m["K"])
    return [
        pictures.Curve(
            "Tokenizer: reconstruction", "bits/dim", *_log(run / "tokenizer" / "log.jsonl"), {}
        ),
        pictures.Curve(
            "Prior: codes",
            "bits/code",
            *_log(run / "prior-0" / "log.jsonl"),
            {
                "uniform": uniform_per_code,
                "unigram": uniform_per_code * m["unigram_bpd"] / m["uniform_bpd"],
            },
        ),
    ]


def _log(path: Path) -> tuple[list[int], list[float], list[float]]:
    """Steps, training and validation values of a fit."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [line["step"] for line in lines]
    return steps, [line["train"] for line in lines], [line["validation"] for line in lines]


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    report(*parse(sys.argv[1:] if argv is None else argv, "report"))


if __name__ == "__main__":
    main()
