"""Stage 5: measure tokenizer, prior and samples on held-out images.

    vqk eval runs/digits

Reads everything the stages before it wrote. Writes RUN/metrics.json, RUN/reconstructions.png and
RUN/usage.png. Bits are bits per dimension on the test split, which nothing was fitted to or
chosen on.
"""

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from vqtrain import checkpoint, codes, pictures
from vqtrain.codes import CodeStore
from vqtrain.config import RunConfig, parse
from vqtrain.data import load_dataset
from vqtrain.data.dataset import Dataset
from vqtrain.files import write_json
from vqtrain.metrics.classify import score_samples
from vqtrain.metrics.ladder import ladder
from vqtrain.metrics.ledger import Ledger, code_usage, conditioning_gap, ledger
from vqtrain.models.tokenizer import Tokenizer
from vqtrain.runtime import stage, stage_seconds, start
from vqtrain.sample import load_samples
from vqtrain.train_prior import load_priors
from vqtrain.train_tokenizer import load_tokenizer

SCHEMA = 1
LEAST_GAP = 0.1  # bits per image; below it, samples of all classes look alike


@torch.no_grad()
def evaluate(config: RunConfig, run: Path) -> dict[str, Any]:
    """Measures and writes `metrics.json`; returns its content."""
    device = start(config).device
    begin = time.perf_counter()
    with stage("eval", run) as note:
        dataset = load_dataset(config.data, config.seed)
        tokenizer, header = load_tokenizer(config, run)
        store = codes.read(run / "codes", header["fingerprint"])
        priors = load_priors(config, run, header["fingerprint"], len(store.grids))
        samples = load_samples(run, [checkpoint.fingerprint(prior) for prior in priors])
        tokenizer.to(device)
        for prior in priors:
            prior.to(device)
        test_codes = store.splits["test"].to(device)
        rows = torch.arange(store.train.size)
        clean = store.train.batch(rows, torch.zeros_like(rows)).to(device)
        bits = ledger(tokenizer, priors, dataset.test.to(device), test_codes, clean.codes)
        gap = conditioning_gap(priors, test_codes, len(store.class_names))
        rungs = ladder(dataset)
        metrics = {
            "schema": SCHEMA,
            **_bits(bits, rungs),
            "standard_error_bpd": bits.standard_error,
            "ladder": rungs,
            "test_images": len(dataset.test.x),
            "test_codes": sum(level.numel() for level in test_codes.codes),
            "grids": [list(grid) for grid in store.grids],
            **_usage(run, store),
            "conditioning_gap_bits_per_image": gap,
            "conditioning_gap_ceiling": math.log2(len(store.class_names)),
            **_reconstructions(run, tokenizer, dataset),
            **_samples(samples, dataset),
            "tokenizer_best_step": header["facts"]["step"],
            "seed": config.seed,
            "threads": torch.get_num_threads(),
            "device": str(device),
            "warnings": warnings(bits, gap),
        }
        earlier = [s for name, s in stage_seconds(run).items() if name not in ("eval", "report")]
        metrics["seconds"] = round(sum(earlier) + time.perf_counter() - begin, 2)
        write_json(run / "metrics.json", metrics)
        for warning in metrics["warnings"]:
            print(f"\n  WARNING: {warning}\n", file=sys.stderr, flush=True)
        note["result"] = summary(metrics)
    return metrics


def summary(m: dict[str, Any]) -> str:
    """The few numbers that say whether a run is good, for the terminal."""
    return f"""{m["total_bpd"]:.3f} bits/dim on {m["test_images"]} held-out images
    reconstruction {m["recon_bpd"]:.3f} + prior {m["prior_bpd"]:.3f} \
(unigram {m["unigram_bpd"]:.3f}, uniform {m["uniform_bpd"]:.3f})
    independent pixels of known class: {m["ladder_class_bpd"]:.3f}
    codes: {m["usage"]:.0%} of {m["K"]} used, perplexity {m["perplexity"]:.2f}
    samples: label agreement {m["label_agreement"]:.1%}, CAS {m["cas"]:.1%}"""


def warnings(bits: Ledger, gap: float) -> list[str]:
    """What must hold for a prior that has learned something, and does not."""
    found = []
    if not bits.prior < bits.unigram:
        found.append(
            f"prior_bpd must be below unigram_bpd {bits.unigram:.3f}, got {bits.prior:.3f}: "
            "the prior is worse than counting codes (overfitted, or hardly trained)"
        )
    if not bits.unigram < bits.uniform:
        found.append(
            f"unigram_bpd must be below uniform_bpd {bits.uniform:.3f}, got {bits.unigram:.3f}: "
            "training and held-out codes differ"
        )
    if not gap > LEAST_GAP:
        found.append(
            f"conditioning gap must be above {LEAST_GAP} bits per image, got {gap:.3f}: "
            "the prior hardly listens to the class"
        )
    return found


def _bits(bits: Ledger, rungs: dict[str, float]) -> dict[str, float]:
    return {
        "total_bpd": bits.total,
        "recon_bpd": bits.recon,
        "prior_bpd": bits.prior,
        "unigram_bpd": bits.unigram,
        "uniform_bpd": bits.uniform,
        "ladder_class_bpd": rungs["class_independent"],
    }


def _usage(run: Path, store: CodeStore) -> dict[str, Any]:
    # The pictures show the level with most codes.
    usage = code_usage(store.splits["test"].codes[-1], store.num_embeddings[-1])
    pictures.usage_chart(run / "usage.png", usage)
    return {
        "K": store.num_embeddings[-1],
        "usage": usage.used,
        "usage_ceiling": usage.ceiling,
        "perplexity": usage.perplexity,
        "code_counts": usage.counts.tolist(),
    }


def _reconstructions(run: Path, tokenizer: Tokenizer, dataset: Dataset) -> dict[str, float]:
    """PSNR of decoder means on the test split, and a picture of the first images of each class."""
    test = dataset.test
    device = next(tokenizer.parameters()).device
    images, labels = test.x.to(device), test.labels.to(device)
    means = tokenizer.likelihood.mean(tokenizer.decode(tokenizer.encode(images), labels)).cpu()
    peak = float(dataset.signal.levels - 1)
    psnr = peak_signal_noise_ratio(means, test.x.float(), data_range=(0.0, peak))
    pictures.reconstruction_sheet(
        run / "reconstructions.png", test, means, dataset.class_names, dataset.signal.levels
    )
    return {"psnr": psnr.item()}


def _samples(samples: dict[str, Tensor], dataset: Dataset) -> dict[str, Any]:
    """Scores decoder means, and beside them pixels drawn from the decoder."""
    scores, drawn = (
        score_samples(
            samples[key], samples["labels"], dataset.clean_train(), dataset.test, dataset.signal.levels
        )
        for key in ("means", "drawn")
    )
    return {
        "label_agreement": scores.label_agreement,
        "label_agreement_per_class": list(scores.per_class),
        "cas": scores.cas,
        "label_agreement_drawn": drawn.label_agreement,
        "cas_drawn": drawn.cas,
        "classifier_on_real": scores.ceiling,
        "samples": len(samples["labels"]),
    }


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    evaluate(*parse(sys.argv[1:] if argv is None else argv, "eval"))


if __name__ == "__main__":
    main()
