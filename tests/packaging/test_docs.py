"""The documents cannot drift: snippets run, tables are those of the results, names are listed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import vqkernels as vq

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("document", "printed"),
    [
        ("README.md", "torch.Size([8, 16, 16])"),
        ("docs/migration.md", "module_prefix 1._codebook.embed"),
    ],
)
def test_the_python_snippets_of_a_document_run_in_order(
    document: str, printed: str, tmp_path: Path
) -> None:
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert len(snippets) >= 2
    script = tmp_path / "snippets.py"
    script.write_text("\n".join(snippets))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


def test_tables_and_plot_of_the_documents_are_those_of_the_committed_results() -> None:
    command = [sys.executable, "-m", "benchmarks.render", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_is_in_the_api_document() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    names = [f"vq.{name}" for name in vq.__all__ if name not in ("__version__", "nn")]
    names += [f"vq.nn.{name}" for name in vq.nn.__all__]
    missing = [name for name in names if f"`{name}" not in text]
    assert not missing


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "DESIGN.md",
        "docs/api.md",
        "docs/benchmarks.md",
        "docs/migration.md",
        "docs/trust.md",
    ],
)
def test_every_local_link_of_the_documents_leads_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text())
    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "DESIGN.md",
        "docs/benchmarks.md",
        "docs/migration.md",
        "docs/trust.md",
    ],
)
def test_every_path_named_by_the_documents_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    named = re.findall(r"`((?:csrc|vqkernels|tests|benchmarks|docs|examples)/[\w./-]*)`", text)
    assert not [name for name in named if not (ROOT / name).exists()]
