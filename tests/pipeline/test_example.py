"""The plain PyTorch example runs, learns, and draws its picture."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_vqvae.py"


def test_the_example_learns_in_a_few_steps_and_is_short(tmp_path: Path) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 100
    picture = tmp_path / "digits.png"
    command = [sys.executable, str(EXAMPLE), "--steps", "100", "--out", str(picture)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env=one_thread
    )
    assert done.returncode == 0, done.stderr
    losses = [float(x) for x in re.findall(r"loss ([\d.]+)", done.stdout)]
    assert len(losses) == 2
    assert losses[1] < 0.8 * losses[0]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_snippet_of_the_pipeline_page_runs() -> None:
    page = (EXAMPLE.parents[1] / "docs" / "pipeline.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, torch.Tensor] = {}
    exec(snippet, names)
    assert names["means"].shape == (4, 1, 8, 8)
    assert names["new"].shape == (4, 4, 4)
