"""The page: whole in itself, sensible for every kind of run, and drawn by a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vqtrain.page import Section, folded, picture, side_by_side, table, tiles, write_page
from vqtrain.report import page_title, sections

LEVEL = {
    "num_embeddings": 8,
    "grid": [4, 4],
    "prior_bpd": 0.4,
    "prior_bits_per_code": 1.6,
    "masked_bits_per_code": None,
    "unigram_bpd": 0.7,
    "uniform_bpd": 0.75,
    "zstd_bpd": None,
}
SPLIT = {
    "items": 10,
    "dims": 64,
    "total_bpd": 1.9,
    "recon_bpd": 1.5,
    "prior_bpd": 0.4,
    "unigram_bpd": 0.7,
    "uniform_bpd": 0.75,
    "zstd_bpd": None,
    "total_standard_error": 0.02,
    "levels": [LEVEL],
}
COMMON = {
    "data": "digits",
    "decoder_conditional": True,
    "skipped": {"ladder": "too big"},
    "warnings": [],
}
CODES = {
    **COMMON,
    **{key: SPLIT[key] for key in ("total_bpd", "recon_bpd", "prior_bpd")},
    "tokenizer": "vqvae",
    "priors": ["pixelcnn"],
    "prior_conditional": True,
    "ledger": {"test": SPLIT},
    "levels": [
        {
            "K": 8,
            "grid": [4, 4],
            "codes": 160,
            "usage": 1.0,
            "usage_ceiling": 1.0,
            "perplexity": 7.5,
        }
    ],
}
NONE = dict.fromkeys(("total_bpd", "recon_bpd", "total_standard_error"))
SQUARED_ERROR = {**CODES, **NONE, "ledger": {"test": {**SPLIT, **NONE}}}
MASKED = {
    **CODES,
    **dict.fromkeys(("total_bpd", "prior_bpd")),
    "ledger": {
        "test": {
            **SPLIT,
            **dict.fromkeys(("total_bpd", "prior_bpd", "total_standard_error")),
            "levels": [
                {
                    **LEVEL,
                    "prior_bpd": None,
                    "prior_bits_per_code": None,
                    "masked_bits_per_code": 1.234,
                }
            ],
        }
    },
}
VAE = {
    **COMMON,
    "tokenizer": "vae",
    "total_bpd": 1.95,
    "recon_bpd": 1.7,
    "kl_bpd": 0.25,
    "active_units": 20,
    "latent_units": 32,
    "ledger": {
        "test": {
            "items": 10,
            "dims": 64,
            "total_bpd": 1.95,
            "recon_bpd": 1.7,
            "kl_bpd": 0.25,
            "total_standard_error": 0.02,
            "active_units": 20,
            "latent_units": 32,
        }
    },
}


@pytest.fixture
def png(tmp_path: Path) -> Path:
    path = tmp_path / "dot.png"
    Image.new("RGB", (800, 200), (20, 30, 40)).save(path)
    return path


def page_of(tmp_path: Path, metrics: dict[str, Any]) -> str:
    (tmp_path / "config.yaml").write_text("seed: 0  # <quick>\n")
    path = tmp_path / "report.html"
    write_page(path, "run", "lead", sections(tmp_path, metrics))
    return path.read_text()


def test_a_page_holds_its_pictures_and_names_no_other_file(tmp_path: Path, png: Path) -> None:
    body = picture(png, 'a "dot" <b>') + picture(tmp_path / "absent.png", "never there")
    write_page(tmp_path / "p.html", "a < b", "x & y", [Section("s", body)], ["<danger>"])
    page = (tmp_path / "p.html").read_text()
    assert page.count("data:image/png;base64,") == page.count("<img") == 1
    without_pictures = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", without_pictures)
    for escaped in ("a &lt; b", "x &amp; y", "&lt;danger&gt;", "a &quot;dot&quot; &lt;b&gt;"):
        assert escaped in page
    assert "never there" not in page


def test_a_picture_of_two_panels_takes_the_whole_width(tmp_path: Path, png: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("RGB", (1690, 400)).save(wide)
    assert 'class="wide"' in picture(wide, "two panels")
    assert 'class="wide"' not in picture(png, "one")


def test_what_is_empty_leaves_no_trace(tmp_path: Path) -> None:
    assert table(("a", "b"), []) == ""
    assert side_by_side("", "") == ""
    assert side_by_side("", "<p>one</p>") == "<p>one</p>"
    write_page(tmp_path / "p.html", "t", "l", [Section("Absent section", "")])
    assert "Absent section" not in (tmp_path / "p.html").read_text()


@pytest.mark.parametrize(
    ("folder", "title"),
    [("runs/digits", "digits"), ("runs/table/4x4-K8/seed-2", "4x4-K8, seed 2")],
)
def test_the_title_tells_the_runs_of_a_table_apart(folder: str, title: str) -> None:
    assert page_title(Path(folder)) == title


def test_the_page_of_codes_has_the_ledger(tmp_path: Path) -> None:
    page = page_of(tmp_path, CODES)
    assert "Told the class: decoder and prior." in page
    for text in ("1.900 ± 0.020", "4x4 codes of 8", "1.600", "100.0%", "too big", "&lt;quick&gt;"):
        assert text in page
    assert "KL" not in page


def test_the_page_of_a_squared_error_claims_no_bits_of_items(tmp_path: Path) -> None:
    page = page_of(tmp_path, SQUARED_ERROR)
    assert "bits/dim, held out" not in page
    assert "1.600" in page  # the codes still have bits


def test_the_page_of_a_masked_prior_says_what_its_bits_are(tmp_path: Path) -> None:
    assert "masked only: 1.234" in page_of(tmp_path, MASKED)


def test_the_page_of_a_vae_has_its_bound_and_no_codes(tmp_path: Path) -> None:
    page = page_of(tmp_path, VAE)
    for text in ("1.950 ± 0.020", "0.250", "20", "of 32"):
        assert text in page
    assert not re.search("unigram|codebook|perplexity|prior", page, re.IGNORECASE)


@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_draws_the_page_and_nothing_is_cut_off(
    tmp_path: Path, png: Path, width: int
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    wide = tmp_path / "wide.png"
    Image.new("RGB", (1690, 400), (20, 30, 40)).save(wide)
    rows = [("a name of some length", *["1.234 \u00b1 0.005"] * 6)]
    body = tiles([("bits/dim", "1.900", "against 2.0")] * 4) + table(("x", *"abcdef"), rows)
    body += picture(wide, "dots") + side_by_side(picture(png, "dot"), folded("s", "text"))
    write_page(tmp_path / "p.html", "A run", "One sentence.", [Section("All", body)])
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    shot = tmp_path / "page.png"
    done = subprocess.run(
        [
            *command,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},1600",
            f"--screenshot={shot}",
            (tmp_path / "p.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shot.is_file(), done.stderr
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape[1] == width
    assert (pixels < 100).mean() > 0.02  # ink: text and the two dark pictures
    # The page itself is never wider than the window: its margin stays white.
    assert (pixels[:, -10:] > 250).all()


@pytest.mark.parametrize("metrics", [CODES, VAE])
def test_logs_of_priors_that_the_run_no_longer_has_are_left_out(
    tmp_path: Path, metrics: dict[str, Any]
) -> None:
    for name in ("tokenizer", "prior-0", "prior-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text('{"step": 1, "loss": 2.0, "validation": 1.0}\n')
    page = page_of(tmp_path, metrics)
    assert "Training and validation of tokenizer" in page
    assert ("Training and validation of prior-0" in page) == ("levels" in metrics)
    assert "Training and validation of prior-1" not in page


def test_a_validation_that_was_not_finite_is_a_gap_in_the_curve(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    found = ({"loss": None, "validation": None}, {"loss": 2.0, "validation": 1.0})
    lines = [json.dumps({"step": step, **line}) for step, line in enumerate(found)]
    (tmp_path / "tokenizer" / "log.jsonl").write_text("\n".join(lines))
    assert "Training and validation of tokenizer" in page_of(tmp_path, CODES)
