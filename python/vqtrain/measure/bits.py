"""Bits of every split, use of the codebooks, and how much the priors listen to the class."""

import math
from dataclasses import asdict
from typing import Any

from vqtrain import pictures
from vqtrain.data import Dataset
from vqtrain.measure.subject import Subject
from vqtrain.metrics.coders import unigram
from vqtrain.metrics.conditioning import conditioning
from vqtrain.metrics.ladder import ladder, unfit
from vqtrain.metrics.ledger import Ledger, ledger
from vqtrain.metrics.usage import code_usage

SPLITS = ("train", "validation", "test")
MOST_GRIDS = 8_000  # that a conditioning gap may evaluate, each item once per class
LEAST_GAP = 0.1  # bits per item; below it, samples of all classes look alike
LEAST_USAGE = 0.5  # of the ceiling; below it, a codebook has collapsed


def measure_bits(subject: Subject, skipped: dict[str, str]) -> dict[str, Any]:
    """The ledger of each split, and its test part once more at the top."""
    train = subject.store.clean_train()
    frequencies = [
        unigram(level, k).to(subject.device)
        for level, k in zip(train.codes, subject.store.num_embeddings, strict=True)
    ]
    ledgers: dict[str, Ledger] = {}
    for name in SPLITS:
        items, coded = subject.split(name)
        ledgers[name] = ledger(subject.tokenizer, subject.priors, items, coded.codes, frequencies)
    test = ledgers["test"]
    if test.recon_bpd is None:
        skipped["recon_bpd"] = "the decoder has no likelihood: its squared error is no code length"
    if test.prior_bpd is None:
        skipped["prior_bpd"] = "a masked prior has no exact likelihood"
    return {
        "total_bpd": test.total_bpd,
        "recon_bpd": test.recon_bpd,
        "prior_bpd": test.prior_bpd,
        "unigram_bpd": test.unigram_bpd,
        "uniform_bpd": test.uniform_bpd,
        "zstd_bpd": test.zstd_bpd,
        "standard_error_bpd": test.total_standard_error,
        "ledger": {name: asdict(part) for name, part in ledgers.items()},
    }


def measure_ladder(dataset: Dataset, skipped: dict[str, str]) -> dict[str, Any]:
    """Bits of simple models of the same items, for the total to pass."""
    reason = unfit(dataset.signal)
    if reason is not None:
        skipped["ladder"] = reason
        return {}
    rungs = ladder(dataset)
    return {"ladder": rungs, "ladder_class_bpd": rungs["class_independent"]}


def measure_usage(subject: Subject) -> dict[str, Any]:
    """Codes of the test split by level; the level with most codes once more at the top."""
    levels = []
    test = subject.store.splits["test"]
    sizes = zip(test.codes, subject.store.num_embeddings, subject.store.grids, strict=True)
    for level, (coded, k, grid) in enumerate(sizes):
        usage = code_usage(coded, k)
        name = "Codebook" if len(test.codes) == 1 else f"Codebook of level {level}"
        pictures.usage_chart(subject.run / f"usage-{level}.png", usage, name)
        levels.append(
            {
                "K": k,
                "grid": list(grid),
                "codes": coded.numel(),
                "usage": usage.used,
                "usage_ceiling": usage.ceiling,
                "perplexity": usage.perplexity,
                "code_counts": usage.counts.tolist(),
            }
        )
    flat = ("K", "grid", "usage", "usage_ceiling", "perplexity", "code_counts")
    return {
        **{key: levels[-1][key] for key in flat},
        "test_codes": sum(coded.numel() for coded in test.codes),
        "levels": levels,
    }


def measure_conditioning(subject: Subject, skipped: dict[str, str]) -> dict[str, Any]:
    """The marginal conditioning gap and the Bayes accuracy of the priors, on the test split."""
    classes = len(subject.dataset.class_names)
    if classes < 2:
        skipped["conditioning"] = "the data has no classes"
        return {}
    if not all(prior.exact_likelihood for prior in subject.priors):
        skipped["conditioning"] = "a masked prior has no exact likelihood"
        return {}
    items, coded = subject.split("test")
    few = slice(max(1, MOST_GRIDS // classes))
    found = conditioning(
        subject.priors, tuple(level[few] for level in coded.codes), items.labels[few], classes
    )
    return {
        "conditioning_gap_bits_per_image": found.gap_bits,
        "conditioning_gap_standard_error": found.gap_standard_error,
        "conditioning_gap_ceiling": found.gap_bound_bits,
        "conditioning_gap_items": found.items,
        "bayes_accuracy": found.bayes_accuracy,
    }


def bits_warnings(m: dict[str, Any]) -> list[str]:
    """What must hold for priors that have learned something, and does not."""
    found: list[str] = []
    if "levels" not in m:
        return found
    prior, unigram_bits, uniform = m["prior_bpd"], m["unigram_bpd"], m["uniform_bpd"]
    if prior is not None and not prior < unigram_bits:
        found.append(
            f"prior_bpd must be below unigram_bpd {unigram_bits:.3f}, got {prior:.3f}: "
            "the prior is worse than counting codes (overfitted, or hardly trained)"
        )
    if not unigram_bits < uniform:
        found.append(
            f"unigram_bpd must be below uniform_bpd {uniform:.3f}, got {unigram_bits:.3f}: "
            "training and held-out codes differ"
        )
    gap = m.get("conditioning_gap_bits_per_image", math.inf)
    if not gap > LEAST_GAP:
        found.append(
            f"conditioning gap must be above {LEAST_GAP} bits per item, got {gap:.3f}: "
            "the prior hardly listens to the class"
        )
    for number, level in enumerate(m["levels"]):
        least = LEAST_USAGE * level["usage_ceiling"]
        if not level["usage"] >= least:
            found.append(
                f"usage of level {number} must be at least {least:.1%}, half of its ceiling, "
                f"got {level['usage']:.1%}: the codebook has collapsed"
            )
    return found
