"""Stage 5: measure tokenizer, priors and samples on held-out items.

    vqk eval runs/digits

Reads everything the stages before it wrote. Writes RUN/metrics.json and the pictures
RUN/reconstructions.png, RUN/interpolations.png, RUN/usage-0.png (one for each level) and
RUN/neighbours.png. The numbers at the top of `metrics.json` are of the test split, which nothing
was fitted to or chosen on. What a kind of model or data does not have is absent or null, and
`skipped` says why.
"""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from vqtrain.config import RunConfig, parse
from vqtrain.files import write_json
from vqtrain.measure.autoencoder import measure_autoencoder
from vqtrain.measure.bits import (
    bits_warnings,
    measure_bits,
    measure_conditioning,
    measure_ladder,
    measure_usage,
)
from vqtrain.measure.reconstructions import measure_reconstructions
from vqtrain.measure.samples import measure_samples, samples_warnings
from vqtrain.measure.subject import load
from vqtrain.runtime import stage, stage_seconds, start

SCHEMA = 2


@torch.no_grad()
def evaluate(config: RunConfig, run: Path) -> dict[str, Any]:
    """Measures and writes `metrics.json`; returns its content."""
    device = start(config).device
    begin = time.perf_counter()
    with stage("eval", run) as note:
        skipped: dict[str, str] = {}
        measure = measure_autoencoder if config.tokenizer.kind == "vae" else measure_codes
        metrics = {
            "schema": SCHEMA,
            "data": config.data.name,
            "tokenizer": config.tokenizer.kind,
            **measure(config, run, device, skipped),
            "seed": config.seed,
            "threads": torch.get_num_threads(),
            "device": str(device),
            "skipped": skipped,
        }
        metrics["warnings"] = bits_warnings(metrics) + samples_warnings(metrics)
        earlier = [s for name, s in stage_seconds(run).items() if name not in ("eval", "report")]
        metrics["seconds"] = round(sum(earlier) + time.perf_counter() - begin, 2)
        write_json(run / "metrics.json", metrics)
        for warning in metrics["warnings"]:
            print(f"\n  WARNING: {warning}\n", file=sys.stderr, flush=True)
        note["result"] = summary(metrics)
    return metrics


def measure_codes(
    config: RunConfig, run: Path, device: torch.device, skipped: dict[str, str]
) -> dict[str, Any]:
    """Everything there is to measure of a tokenizer with codes, its priors and their samples."""
    subject = load(config, run, device)
    dataset = subject.dataset
    return {
        "priors": [config.prior_of(level).kind for level in range(len(subject.priors))],
        # Codes that are the levels themselves need no decoder to be told anything.
        "decoder_conditional": len(dataset.class_names) > 1
        and getattr(subject.tokenizer.config, "class_conditional", False),
        "prior_conditional": len(dataset.class_names) > 1,
        "test_images": len(dataset.test.labels),
        "dims": dataset.signal.dims,
        **measure_bits(subject, skipped),
        **measure_ladder(dataset, skipped),
        **measure_usage(subject),
        **measure_conditioning(subject, skipped),
        **measure_reconstructions(subject, skipped),
        **measure_samples(run, config, dataset, subject.samples, skipped),
        **subject.best_steps,
    }


def summary(m: dict[str, Any]) -> str:
    """The few numbers that say whether a run is good, for the terminal."""
    lines = [f"measured on {m['test_images']} held-out items"]
    if m["total_bpd"] is not None:
        lines[0] = f"{m['total_bpd']:.3f} bits/dim on {m['test_images']} held-out items"
        lines.append(
            f"reconstruction {m['recon_bpd']:.3f} + KL {m['kl_bpd']:.3f}"
            if "kl_bpd" in m
            else f"reconstruction {m['recon_bpd']:.3f} + prior {m['prior_bpd']:.3f} "
            f"(unigram {m['unigram_bpd']:.3f}, uniform {m['uniform_bpd']:.3f})"
        )
    if "ladder_class_bpd" in m:
        lines.append(f"independent pixels of known class: {m['ladder_class_bpd']:.3f}")
    for level in m.get("levels", ()):
        lines.append(
            f"codes: {level['usage']:.0%} of {level['K']} used, "
            f"perplexity {level['perplexity']:.2f}"
        )
    if "psnr" in m:
        floor = f", k-means on patches {m['psnr_patches']:.1f}" if "psnr_patches" in m else ""
        lines.append(f"PSNR {m['psnr']:.1f} dB{floor}")
    if "cas" in m:
        lines.append(f"samples: label agreement {m['label_agreement']:.1%}, CAS {m['cas']:.1%}")
    return "\n    ".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    evaluate(*parse(sys.argv[1:] if argv is None else argv, "eval"))


if __name__ == "__main__":
    main()
