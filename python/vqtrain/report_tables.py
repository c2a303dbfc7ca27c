"""The metrics of a run as rows of text: what the page's tables hold."""

import math
from typing import Any

from vqtrain.page import Row, table

Metrics = dict[str, Any]

RUNGS = {
    "uniform": "uniform levels",
    "independent": "independent entries",
    "class_independent": "independent entries, class known",
    "autoregressive": "softmax regression on earlier entries",
    "class_autoregressive": "softmax regression, class known",
}
CODE_COLUMNS = {
    "reconstruction": "recon_bpd",
    "prior": "prior_bpd",
    "unigram": "unigram_bpd",
    "uniform": "uniform_bpd",
    "zstd": "zstd_bpd",
}
KL_COLUMNS = {"reconstruction": "recon_bpd", "KL": "kl_bpd"}
SETS = {"samples": "samples", "held_out": "held-out items", "train": "other training items"}


def headline(m: Metrics) -> str:
    """One sentence: what was run, and what came out."""
    models = " + ".join([m["tokenizer"], *dict.fromkeys(m.get("priors", ()))])
    if m["total_bpd"] is not None:
        result = f"held-out items cost {m['total_bpd']:.3f} bits per dimension"
    else:
        result = "no likelihood, so no code length of the items"
    return f"{models} on {m['data']}: {result}."


def key_figures(m: Metrics) -> list[tuple[str, str, str]]:
    """Name, value and yardstick of the few numbers that say most."""
    found = []
    if m["total_bpd"] is not None:
        second = f"KL {m['kl_bpd']:.3f}" if "kl_bpd" in m else f"codes {m['prior_bpd']:.3f}"
        parts = f"reconstruction {m['recon_bpd']:.3f} + {second}"
        found.append(("bits/dim, held out", f"{m['total_bpd']:.3f}", parts))
    if "psnr" in m:
        floor = m.get("psnr_patches")
        against = "of decoder means" if floor is None else f"k-means on patches {floor:.1f} dB"
        found.append(("PSNR", f"{m['psnr']:.1f} dB", against))
    if "levels" in m:
        used = min(level["usage"] / level["usage_ceiling"] for level in m["levels"])
        sizes = " + ".join(f"{_grid(level['grid'])}, K {level['K']}" for level in m["levels"])
        found.append(("codes used", f"{used:.0%}", f"of their ceiling; {sizes}"))
    if "active_units" in m:
        found.append(("active units", str(m["active_units"]), f"of {m['latent_units']}"))
    if "cas" in m:
        found.append(
            (
                "label agreement",
                f"{m['label_agreement']:.1%}",
                f"of {m['samples']} samples; accuracy score {m['cas']:.1%}",
            )
        )
    return found


def bits_tables(m: Metrics) -> list[str]:
    """One table over the splits, and one over the levels of codes."""
    splits = m["ledger"]
    columns = KL_COLUMNS if "kl_bpd" in m else CODE_COLUMNS
    rows = [
        (
            f"{name} ({part['items']} items)",
            _with_error(part["total_bpd"], part["total_standard_error"]),
            *(_number(part[key]) for key in columns.values()),
        )
        for name, part in splits.items()
    ]
    found = [table(("split", "total", *columns), rows)]
    if "kl_bpd" not in m:
        ways = list(CODE_COLUMNS)[1:]
        head = ("level, top first", "bits/code", "uniform bits/code", *ways)
        found.append(table(head, _level_rows(splits["test"]), "Test split, each level of codes"))
    return found


def _level_rows(test: Metrics) -> list[Row]:
    rows: list[Row] = []
    for level in test["levels"]:
        per_code = _number(level["prior_bits_per_code"])
        if level["masked_bits_per_code"] is not None:
            per_code = f"masked only: {level['masked_bits_per_code']:.3f}"
        rows.append(
            (
                f"{_grid(level['grid'])} codes of {level['num_embeddings']}",
                per_code,
                f"{math.log2(level['num_embeddings']):.3f}",
                *(_number(level[key]) for key in list(CODE_COLUMNS.values())[1:]),
            )
        )
    return rows


def ladder_rows(m: Metrics) -> list[Row]:
    """The rungs and this model, costliest first."""
    if "ladder" not in m or m["total_bpd"] is None:
        return []
    rungs = [(RUNGS[key], bits) for key, bits in m["ladder"].items()]
    rungs.append(("this model", m["total_bpd"]))
    return [(name, f"{bits:.3f}") for name, bits in sorted(rungs, key=lambda rung: -rung[1])]


def reconstruction_rows(m: Metrics) -> list[Row]:
    """PSNR over everything and over each group, such as a photograph; its floor; SSIM."""
    if "psnr" not in m:
        return []
    floors = {"all items": m.get("psnr_patches"), **m.get("psnr_patches_by_group", {})}
    rows: list[Row] = []
    for name, value in {"all items": m["psnr"], **m["psnr_by_group"]}.items():
        floor = floors.get(name)
        similarity = _number(m["ssim"]) if not rows else ""
        rows.append((name, _db(value), "" if floor is None else _db(floor), similarity))
    return rows


def code_rows(m: Metrics) -> list[Row]:
    """Use of each level's codebook on the test split."""
    return [
        (
            f"{_grid(level['grid'])}",
            str(level["K"]),
            str(level["codes"]),
            f"{level['usage']:.1%}",
            f"{level['usage_ceiling']:.1%}",
            f"{level['perplexity']:.1f}",
        )
        for level in m.get("levels", ())
    ]


def quality_rows(m: Metrics) -> list[Row]:
    """Scores of samples beside those of real items, which are their ceiling or floor."""
    rows: list[Row] = []
    if "cas" in m:
        real = f"{m['classifier_on_real']:.1%}"
        rows += [
            ("label agreement (decoder means)", f"{m['label_agreement']:.1%}", real),
            ("label agreement (entries drawn)", _share(m["label_agreement_drawn"]), real),
            ("classification accuracy score (decoder means)", f"{m['cas']:.1%}", real),
            ("classification accuracy score (entries drawn)", _share(m["cas_drawn"]), real),
        ]
    for factor, share in m.get("rules", {}).items():
        real = _share(m["rules_real"][factor]) if "rules_real" in m else ""
        rows.append((f"{factor} right by rule", _share(share), real))
        if "rules_decoded" in m:
            decoded = _share(m["rules_decoded"][factor])
            rows.append((f"{factor} right by rule, of reconstructions", decoded, real))
    if "local_distances" in m:
        for key, name in (("fd_local", "local Frechet"), ("kernel_local", "local kernel")):
            found = m["local_distances"][key]
            rows.append(
                (
                    f"{name} distance ({m['local_distances']['items']} items)",
                    _with_interval(found["value"], found["interval"]),
                    _with_interval(found["floor"], found["floor_interval"]),
                )
            )
    if "conditioning_gap_bits_per_image" in m:
        rows += [
            (
                "conditioning gap, bits/item (at most)",
                _with_error(
                    m["conditioning_gap_bits_per_image"], m["conditioning_gap_standard_error"]
                ),
                f"({m['conditioning_gap_ceiling']:.2f})",
            ),
            ("class read off the codes by the prior", "", _share(m["bayes_accuracy"])),
        ]
    return rows


def neighbour_rows(m: Metrics) -> list[Row]:
    """Distances to the nearest training item, and exact copies."""
    if "neighbours" not in m:
        return []
    quantiles = m["neighbours"]["quantiles"]
    rows: list[Row] = [
        (name, *(f"{quantiles[key][at]:.2f}" for at in (1, 3, 5))) for key, name in SETS.items()
    ]
    rows.append(("samples equal to a training item", _share(m["duplicates_of_train"]), "", ""))
    rows.append(("samples equal to another one", _share(m["duplicates_among_samples"]), "", ""))
    return rows


def _grid(grid: list[int]) -> str:
    return "x".join(map(str, grid))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _with_error(value: float | None, error: float | None) -> str:
    if value is None or error is None:
        return _number(value)
    return f"{value:.3f} \u00b1 {error:.3f}"


def _with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _db(value: float) -> str:
    return f"{value:.2f} dB"
