"""Bad arguments: the error is the documented one, and no kernel is reached."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
from backends import native_core

import vqkernels as vq

X, CODES = cases.batch()
IMAGE = torch.zeros(2, 6, 3, 4)
INDICES = torch.zeros(24, dtype=torch.int64)
META = torch.zeros(24, 6, device="meta")
MASK = torch.ones(24, dtype=torch.bool)


def _quantize(*arguments: Any, **options: Any) -> vq.VQOutput:
    return vq.vector_quantize(*arguments, **options)


def _ema(codebook: Any = None, decay: Any = 0.9, epsilon: Any = 0.0, counts: Any = None) -> None:
    codebook = torch.ones(4, 2) if codebook is None else codebook
    counts = torch.ones(4) if counts is None else counts
    state = torch.ones(4), torch.ones(4, 2), counts, torch.ones(4, 2)
    vq.ema_update_(codebook, *state, decay=decay, epsilon=epsilon)


SEARCHES = (vq.nearest_code, _quantize)
# (call, exception, start of the message)
SEARCH_ERRORS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    (([1.0], CODES), {}, TypeError, "x must be a torch.Tensor, got list"),
    ((X.long(), CODES), {}, TypeError, "x must be float32, float16, bfloat16 or float64, got"),
    ((X + 0j, CODES), {}, TypeError, "x must be float32, float16, bfloat16 or float64, got"),
    ((X, CODES.int()), {}, TypeError, "codebook must be float32, float16, bfloat16 or float64,"),
    ((X, [1]), {}, TypeError, "codebook must be a torch.Tensor, got list"),
    ((X[0], CODES), {}, ValueError, "x must have at least 2 dimensions, got shape (6,)"),
    ((X, CODES[0]), {}, ValueError, "codebook must have shape (K, D) with K >= 1 and D >= 1,"),
    ((X, CODES[:0]), {}, ValueError, "codebook must have shape (K, D) with K >= 1 and D >= 1,"),
    ((X[:, :0], CODES[:, :0]), {}, ValueError, "codebook must have shape (K, D) with K >= 1 and"),
    ((X[:, :5], CODES), {}, ValueError, "x must have size 6 in dimension 1 (channel_dim=1),"),
    ((META, CODES), {}, ValueError, "codebook must be on the device of x (meta), got cpu"),
    ((X, META[:11]), {}, ValueError, "codebook must be on the device of x (cpu), got meta"),
    ((X, CODES), {"channel_dim": 2}, ValueError, "channel_dim must be in [-2, 1], got 2"),
    ((X, CODES), {"channel_dim": 1.0}, TypeError, "channel_dim must be an integer, got 1.0"),
    ((X, CODES), {"channel_dim": True}, TypeError, "channel_dim must be an integer, got True"),
    ((X, CODES), {"metric": "L2"}, ValueError, "metric must be one of 'l2', 'cosine', got 'L2'"),
    ((X, CODES), {"metric": None}, ValueError, "metric must be one of 'l2', 'cosine', got None"),
    ((X, CODES), {"backend": "cuda"}, ValueError, "backend must be one of 'native', 'triton',"),
    ((X, CODES), {"backend": "triton"}, ValueError, "x must be on a CUDA device for"),
    ((X.double(), CODES), {"backend": "native"}, TypeError, "x must be float32, float16 or"),
    ((X, CODES.double()), {"backend": "native"}, TypeError, "codebook must be float32, float16"),
]


@pytest.mark.parametrize("search", SEARCHES, ids=["nearest_code", "vector_quantize"])
@pytest.mark.parametrize(("arguments", "options", "kind", "message"), SEARCH_ERRORS)
def test_both_searches_refuse(
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    kind: type[Exception],
    message: str,
    search: Callable[..., Any],
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}") as caught:
        search(*arguments, **options)
    assert type(caught.value) is kind


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: _quantize(X, CODES, mask=INDICES), TypeError, "mask must be torch.bool, got"),
    (lambda: _quantize(X, CODES, mask=[1]), TypeError, "mask must be a torch.Tensor, got list"),
    (lambda: _quantize(X, CODES, mask=MASK[:5]), ValueError, "mask must have shape (24,), got"),
    (lambda: _quantize(IMAGE, CODES, mask=MASK), ValueError, "mask must have shape (2, 3, 4),"),
    (lambda: _quantize(X, CODES, mask=MASK.to("meta")), ValueError, "mask must be on the device"),
    (lambda: _quantize(X, CODES, estimator="ste"), ValueError, "estimator must be one of"),
    (lambda: _quantize(X, CODES, commitment_weight=-1), ValueError, "commitment_weight must be"),
    (lambda: _quantize(X, CODES, commitment_weight="1"), TypeError, "commitment_weight must be"),
    (lambda: _quantize(X, CODES, codebook_weight=torch.inf), ValueError, "codebook_weight must"),
    (lambda: vq.lookup(X, CODES), TypeError, "indices must have an integer dtype, got"),
    (lambda: vq.lookup(MASK, CODES), TypeError, "indices must have an integer dtype, got"),
    (lambda: vq.lookup(INDICES[0], CODES), ValueError, "indices must have at least 1 dimension,"),
    (lambda: vq.lookup(INDICES, CODES[:0]), ValueError, "codebook must have shape (K, D) with K"),
    (lambda: vq.lookup(INDICES, META), ValueError, "indices must be on the device of codebook"),
    (lambda: vq.lookup(INDICES, CODES, channel_dim=2), ValueError, "channel_dim must be in [-2,"),
    (lambda: vq.lookup(INDICES + 11, CODES), ValueError, "indices must be in [-1, 10], got 11"),
    (lambda: vq.lookup(INDICES - 2, CODES), ValueError, "indices must be in [-1, 10], got -2"),
    (lambda: vq.code_sums(X, INDICES, 0), ValueError, "num_embeddings must be at least 1, got"),
    (lambda: vq.code_sums(X, INDICES, 2.0), TypeError, "num_embeddings must be an integer, got"),
    (lambda: vq.code_sums(X, INDICES[:3], 4), ValueError, "indices must have shape (24,), got"),
    (lambda: vq.code_sums(X, MASK, 4), TypeError, "indices must have an integer dtype, got"),
    (lambda: vq.code_sums(X, INDICES + 4, 4), ValueError, "indices must be in [-1, 3], got 4"),
    (lambda: vq.code_sums(INDICES[:, None], INDICES, 4), TypeError, "x must be float32,"),
    (
        lambda: vq.code_sums(X, INDICES, 4, deterministic=1),
        TypeError,
        "deterministic must be a bo",
    ),
    (lambda: vq.code_sums(X, INDICES, 4, mask=MASK[None]), ValueError, "mask must have shape"),
    (lambda: _ema(decay=1.0), ValueError, "decay must be in [0, 1), got 1.0"),
    (lambda: _ema(epsilon=-1.0), ValueError, "epsilon must be at least 0, got -1.0"),
    (lambda: _ema(torch.ones(4, 2).half()), TypeError, "codebook must be float32 (or float64),"),
    (lambda: _ema(counts=torch.ones(3)), ValueError, "counts must have shape (4,), got (3,)"),
    (lambda: _ema(counts=[1]), TypeError, "counts must be a torch.Tensor, got list"),
    (lambda: vq.explain(X, CODES, backend="triton"), ValueError, "x must be on a CUDA device"),
    (lambda: vq.explain(X, CODES, metric="L2"), ValueError, "metric must be"),
    (
        lambda: vq.explain(X, vq.prepare(CODES), metric="cosine"),
        ValueError,
        "metric must be the one that the codebook was prepared for, 'l2', got 'cosine'",
    ),
    (
        lambda: vq.explain(META, META, backend="native"),
        ValueError,
        "x must be on a CPU or CUDA device for",
    ),
    (lambda: vq.EMA(decay=1.0), ValueError, "EMA.decay must be in [0, 1), got 1.0"),
    (lambda: vq.EMA(every=0), ValueError, "EMA.every must be at least 1, got 0"),
    (lambda: vq.EMA(every=1.5), TypeError, "EMA.every must be an integer, got 1.5"),
    (lambda: vq.EMA(epsilon=-1e-9), ValueError, "EMA.epsilon must be at least 0, got -1e-09"),
    (lambda: vq.Gradient(weight=-1), ValueError, "Gradient.weight must be at least 0, got -1"),
    (lambda: vq.Revive(threshold=0), ValueError, "Revive.threshold must be above 0, got 0"),
    (lambda: vq.Revive(age=0.0), ValueError, "Revive.age must be above 0, got 0.0"),
    (lambda: vq.Revive(age="100"), TypeError, "Revive.age must be a number, got '100'"),
    (lambda: vq.Revive(candidates=0), ValueError, "Revive.candidates must be at least 1, got 0"),
    (lambda: vq.Sample(0.0), ValueError, "Sample.temperature must be above 0, got 0.0"),
    (lambda: vq.Sample(seed=-1), ValueError, "Sample.seed must be at least 0, got -1"),
    (lambda: vq.TopK(0), ValueError, "TopK.k must be at least 1, got 0"),
    (lambda: vq.TopK(2.0), TypeError, "TopK.k must be an integer, got 2.0"),
    (lambda: vq.Revive(every=0), ValueError, "Revive.every must be at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS, ids=[row[2] for row in ERRORS])
def test_the_contract(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}") as caught:
        call()
    assert type(caught.value) is kind


@pytest.mark.parametrize("search", SEARCHES, ids=["nearest_code", "vector_quantize"])
def test_a_width_that_fits_the_last_dimension_gets_the_hint(search: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"did you mean channel_dim=-1\?$"):
        search(torch.zeros(2, 5, 6), CODES)
    with pytest.raises(ValueError, match=r"got shape \(2, 5, 7\)$"):
        search(torch.zeros(2, 5, 7), CODES)


@pytest.mark.parametrize("shape", [(0, 6), (2, 6, 0), (0, 6, 3, 4)])
def test_an_empty_batch_is_no_error(shape: tuple[int, ...], backend: str) -> None:
    out = vq.vector_quantize(torch.zeros(shape), CODES, backend=backend)
    assert out.quantized.shape == shape
    assert out.loss == 0
    assert out.indices.numel() == 0


_WITHOUT_NATIVE = """
import sys
sys.modules["vqkernels._native"] = None
import torch, vqkernels as vq
x = torch.ones(2, 3)
assert vq.explain(x, x).chosen["nearest_code"] == "reference"
assert vq.nearest_code(x, x).indices.tolist() == [0, 0]
for call in (
    lambda: vq.nearest_code(x, x, backend="native"),
    lambda: vq.nn.VectorQuantizer(4, 3, backend="native")(x),
    lambda: vq.explain(x, x, backend="native"),
):
    try:
        call()
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.parametrize("accepted", [False, True], ids=["warns", "VQK_NATIVE=off"])
def test_a_missing_extension_is_refused_by_name_with_the_fix(accepted: bool) -> None:
    environment = {**os.environ, "VQK_NATIVE": "off" if accepted else "auto"}
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NATIVE],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("backend='native' must have the compiled ext") for line in lines)
    assert all("pip install" in line for line in lines)
    assert done.stderr.count("RuntimeWarning") == (0 if accepted else 1)


@pytest.mark.skipif(native_core() is None, reason="native is not built")
def test_the_extension_itself_refuses_what_would_read_out_of_bounds() -> None:
    """The last line of defence, below the Python checks."""
    core = native_core()
    rows = core.Rows(X.data_ptr(), 0, [24, 6], [6, 1], 1)
    with pytest.raises(ValueError, match="num_codes must be in"):
        core.nearest_code(rows, CODES.data_ptr(), 0, 0, (0, 0), 0, 0, 1)
    for arguments in ((3, [24, 6], [6, 1], 1), (0, [24, 6], [6], 1), (0, [24, 6], [6, 1], 2)):
        with pytest.raises(ValueError, match="must"):
            core.Rows(X.data_ptr(), *arguments)
    with pytest.raises(ValueError, match="out must be aligned to 64 bytes"):
        core.prepare(CODES.data_ptr(), 11, 6, 0, 0, 8, 1)
    with pytest.raises(ValueError, match=r"cells must be in \[0, 11\], got 12"):
        core.prepare(CODES.data_ptr(), 11, 6, 0, 12, 0, 1)
    with pytest.raises(ValueError, match="choice must be auto, never or always, got maybe"):
        core.force_pruning("maybe")
