"""Imports run one way: each layer only from names to its left."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import vqkernels as vq

ROOT = Path(__file__).parents[2]
LAYERS = ("backends", "ops", "functional", "nn", "compat")
# Files that belong to a layer without bearing its name.
PART_OF = dict.fromkeys(
    (
        "_assign",
        "_bit_codes",
        "_explain",
        "_fsq",
        "_given_codes",
        "_health",
        "_index_gradient",
        "_masks",
        "_nearest_codes",
        "_prepare",
        "_residual_quantize",
        "_soft",
    ),
    "functional",
)
# The top: imports any layer, is imported by none.
TOP = {"vqkernels", "vqkernels.__main__"}


def _module_name(path: Path, root: Path) -> str:
    parts = list(path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, own: set[str]) -> set[str]:
    """Absolute names that a file imports, anywhere in it; a module inside a package in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in own else node.module for name in full}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return found


FILES = {_module_name(path, ROOT): path for path in sorted((ROOT / "vqkernels").rglob("*.py"))}
IMPORTS = {name: _imports(path, set(FILES)) for name, path in FILES.items()}


def _layer(name: str) -> str | None:
    """The layer of a module of ours; "leaf" for what all may import, None for other packages."""
    parts = name.split(".")
    if parts[0] != "vqkernels":
        return None
    if name in TOP:
        return "top"
    layer = PART_OF.get(parts[1], parts[1])
    return layer if layer in LAYERS else "leaf"


def test_every_layer_is_there() -> None:
    assert {_layer(name) for name in FILES} == {*LAYERS, "leaf", "top"}


@pytest.mark.parametrize("name", [name for name in FILES if name not in TOP])
def test_arrows_run_to_the_left(name: str) -> None:
    own = _layer(name)
    allowed = {"leaf"} if own == "leaf" else {"leaf", *LAYERS[: LAYERS.index(own) + 1]}
    if own in ("functional", "nn", "compat"):
        allowed -= {"backends"}  # reached through ops only
    for imported in IMPORTS[name]:
        layer = _layer(imported)
        # vqkernels._native is the compiled core: the launcher's own.
        if layer is not None and imported != "vqkernels._native":
            assert layer in allowed, f"{name} ({own}) imports {imported} ({layer})"


def _backend(name: str) -> str | None:
    parts = name.split(".")
    return parts[2] if parts[:2] == ["vqkernels", "backends"] and len(parts) > 2 else None


def test_no_backend_imports_another() -> None:
    for name, imported in IMPORTS.items():
        if _backend(name) is not None:
            assert {_backend(other) for other in imported} <= {None, _backend(name)}, name


def test_the_reference_is_for_ops_and_tests() -> None:
    for name, imported in IMPORTS.items():
        if "vqkernels.backends.reference" in imported:
            assert _layer(name) == "ops", name


def test_the_core_is_for_its_launcher() -> None:
    users = {name for name, imported in IMPORTS.items() if "vqkernels._native" in imported}
    assert users == {"vqkernels.backends.native._core"}


@pytest.mark.parametrize("name", [name for name in FILES if _layer(name) != "top"])
def test_the_library_needs_only_torch(name: str) -> None:
    third_party = {imported.split(".")[0] for imported in IMPORTS[name]} - sys.stdlib_module_names
    allowed = {"torch", "vqkernels"}
    if name.startswith("vqkernels.backends.triton") or name == "vqkernels.ops.dispatch":
        allowed.add("triton")
    assert third_party <= allowed


def test_vqtrain_uses_public_names_only() -> None:
    for path in (ROOT / "python" / "vqtrain").rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vqkernels"):
                assert node.module in ("vqkernels", "vqkernels.nn"), path
                assert all(hasattr(vq, alias.name) for alias in node.names), path
            elif isinstance(node, ast.Import):
                ours = [alias.name for alias in node.names if alias.name.startswith("vqkernels")]
                assert set(ours) <= {"vqkernels", "vqkernels.nn"}, path
            elif isinstance(node, ast.Attribute):
                owner = getattr(node.value, "id", None)
                public = owner not in ("vq", "vqkernels") or node.attr in vq.__all__
                assert public, f"{path}: {owner}.{node.attr}"


def test_every_public_name_exists() -> None:
    assert all(hasattr(vq, name) for name in vq.__all__)
