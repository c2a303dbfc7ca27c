"""The page of a table: its numbers, its charts, and rows that lack some of them."""

from pathlib import Path
from typing import Any

import pytest

from vqtrain.files import write_json
from vqtrain.table_report import main


def of(mean: float, error: float | None = 0.01) -> dict[str, Any]:
    return {"mean": mean, "standard_error": error, "values": [mean]}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    codes = {
        **{"total_bpd": of(1.9), "recon_bpd": of(1.4), "prior_bpd": of(0.5)},
        **{"uniform_bpd": of(0.75, 0.0), "psnr": of(21.0), "psnr_patches": of(18.0)},
        **{"usage": of(0.9876), "ladder_class_bpd": of(2.2)},
    }
    vae = {**{"total_bpd": of(2.0, None), "recon_bpd": of(1.7, None), "kl_bpd": of(0.3, None)}}
    squared_error = {"prior_bpd": of(0.4), "uniform_bpd": of(0.75), "psnr": of(22.0)}
    rows = {"K8": codes, "VAE": vae, "squared error": squared_error}
    content = {
        "title": "Rows & columns",
        "seeds": [3, 4],
        "rows": [
            {"name": name, "numbers": numbers, "codes_of": None} for name, numbers in rows.items()
        ],
    }
    write_json(tmp_path / "table.json", content)
    return tmp_path


def test_a_page_of_a_table_has_every_number_once_and_both_charts(out: Path) -> None:
    main([str(out)])
    page = (out / "table.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert page.count("Rows &amp; columns") == 2  # title and heading
    for text in ("1.900 ± 0.010", "98.8 ± 1.0", "over the seeds 3, 4"):
        assert page.count(text) == 1
    assert page.count("<td>2.000</td>") == 1  # one seed has no standard error
    assert page.count("<td></td>") > 3  # what a row lacks is empty, not zero
    assert "accuracy score" not in page


def test_the_use_of_every_level_is_on_the_page_of_a_hierarchy_and_one_seed_is_no_mean(
    tmp_path: Path,
) -> None:
    numbers = {key: of(value, None) for key, value in {"usage_0": 0.385, "usage_1": 0.992}.items()}
    rows = [{"name": "K4096", "numbers": numbers, "codes_of": None}]
    write_json(tmp_path / "table.json", {"title": "Levels", "seeds": [7], "rows": rows})
    main([str(tmp_path)])
    page = (tmp_path / "table.html").read_text()
    for text in (
        "codes of level 0 used",
        "codes of level 1 used",
        ">38.5<",
        ">99.2<",
        ">Seed 7, ",
    ):
        assert page.count(text) == 1, text
    assert "level 2" not in page


def test_samples_are_those_of_the_first_seed(out: Path) -> None:
    (out / "K8" / "seed-3").mkdir(parents=True)
    (out / "K8" / "seed-3" / "samples.png").write_bytes(b"the picture")
    main([str(out)])
    page = (out / "table.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "Samples of K8" in page
    assert "Samples of VAE" not in page
