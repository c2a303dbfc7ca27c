"""torch.library: opcheck on every op, and fakes that agree with the real results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cases
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from vqkernels import ops

X, CODES = cases.batch()
INDICES = torch.arange(24) % 11
MASK = torch.arange(24) % 3 != 0
COUNTS, SUMS = torch.arange(11), torch.ones(11, 6)
ZERO, ONE, CLOCK = torch.tensor(0), torch.tensor(1), torch.tensor(5)
ROWS, FOUND = torch.ones(4, 6), torch.tensor(4)
IMAGE = cases.LAYOUTS["channels last"](X)[0]
IMAGE_INDICES = INDICES.reshape(2, 3, 4)
LEVELS = [4, 4, 3, 3, 4, 6]


def _floats() -> Tensor:
    return torch.rand(11, generator=cases.generator(50)) + 1.0


def _ema() -> tuple[Tensor, ...]:
    return CODES.clone(), _floats(), CODES.clone()


BITS = X.reshape(24, 2, 3)
LOGSUMEXP = torch.linspace(-9.0, -5.0, 24, dtype=torch.float64)


def _totals() -> Tensor:
    return torch.tensor([30.0, 24.0], dtype=torch.float64)


BOOKS = cases.codebooks(CODES, 3)
BOOK_INDICES = INDICES[:, None].expand(24, 3).contiguous()
IMAGE_BOOK_INDICES = BOOK_INDICES.reshape(2, 3, 4, 3)
_SOFT = (X, CODES, MASK, LOGSUMEXP, LOGSUMEXP, 1.0)
_NOTHING = torch.empty(0)
LARGE = torch.rand(1024, 8, generator=cases.generator(51))  # enough codes for cells
ALONE = "0"  # what torch names the default process group
_ADVANCE = (0.9, 1e-5, 1, "l2", 1.0, 9, 1)
_MARKS = (COUNTS.clone(), ZERO.clone(), COUNTS % 2)
_BACKWARD = ("straight_through", 0.25, 1.0)
_BOTH = (1, torch.float32, True, True, None)
# op -> argument lists: with and without every optional one
ARGUMENTS: dict[str, list[tuple[Any, ...]]] = {
    "bit_assign": [(BITS, None, 4.0, 0.0), (BITS.half(), MASK, 4.0, 1e-5)],
    "bit_assign_backward": [
        (None, torch.ones(2, 8).double(), BITS, MASK, 4.0, 0.0),
        (torch.ones(24, 2).double(), None, BITS.half(), None, 4.0, 1e-5),
    ],
    "bit_codes": [(INDICES, 4, 1.0, 1), (IMAGE_INDICES, 62, 0.5, 1)],
    "partition": [(LARGE, None), (LARGE, "reference"), (CODES, None)],
    "prepare": [
        (CODES, "l2", None, None),
        (CODES, "l2", None, 3),
        (LARGE, "l2", None, None),
        (CODES.half(), "cosine", "reference", None),
    ],
    "nearest_code": [
        (X, CODES, None, "l2", 1, None),
        (IMAGE, CODES.half(), [CODES], "cosine", 1, "reference"),
        (X[:0], CODES, None, "l2", 1, None),
    ],
    "nearest_codes": [
        (X, CODES, 4, "l2", 1, None),
        (IMAGE, CODES.half(), 11, "cosine", 1, "reference"),
        (X[:0], CODES, 1, "l2", 1, None),
    ],
    "vq_assigned": [
        (X, CODES, INDICES, None, "l2", 1, True, None),
        (
            *(IMAGE.bfloat16(), CODES, IMAGE_INDICES - 1, MASK.reshape(2, 3, 4)),
            *("cosine", 1, False, None),
        ),
        (X.double(), CODES, INDICES, MASK, "l2", 1, True, None),
    ],
    "vq_forward": [
        (X, CODES, None, None, "l2", 1, True, None),
        (IMAGE.bfloat16(), CODES, None, MASK.reshape(2, 3, 4), "cosine", 1, False, None),
        (X.double(), CODES, None, MASK, "l2", 1, True, None),
    ],
    "vq_backward": [
        (X, ONE.float(), X, X, INDICES, 11, "l2", *_BACKWARD, 1, True, True, None),
        (None, ONE.float(), X, X, INDICES, 11, "cosine", *_BACKWARD, 1, True, False, None),
        (IMAGE, None, IMAGE, IMAGE, IMAGE_INDICES, 11, "l2", *_BACKWARD, 1, False, True, None),
        (X, None, X, X, INDICES, 11, "l2", "rotation", 0.0, 0.0, 1, True, False, "reference"),
    ],
    "residual": [
        (X, BOOKS, None, 3, None, None, 1, True, True, True, None),
        (
            IMAGE.half(),
            CODES[None],
            [CODES],
            3,
            MASK.reshape(2, 3, 4),
            IMAGE_INDICES % 4,
            1,
            False,
            True,
            False,
            "reference",
        ),
        (X.double(), BOOKS, None, 3, MASK, INDICES % 4, 1, True, False, True, None),
    ],
    "residual_backward": [
        (X, ONE.float(), None, None, X, BOOKS, None, 24, False, *_BACKWARD, *_BOTH),
        (None, ONE.float(), X, X, X, BOOKS, MASK, 24, True, "rotation", 0.1, 0.2, *_BOTH),
        (
            *(IMAGE.half(), None, None, None, IMAGE, BOOKS[:0], None, 24),
            *(False, *_BACKWARD, 1, torch.float16, True, False, None),
        ),
        (
            *(X, ONE.float(), None, None, _NOTHING, BOOKS, MASK, 24),
            *(False, *_BACKWARD, 1, torch.float32, False, True, "reference"),
        ),
    ],
    "fsq": [
        (X, None, LEVELS, False, "tanh", 0, 1, None),
        (X, MASK, LEVELS, True, "clamp", 3456, 1, "reference"),
        (IMAGE.half(), MASK.reshape(2, 3, 4), LEVELS, True, "tanh", 3456, 1, None),
        (X.double(), MASK, LEVELS, False, "clamp", 0, 1, None),
    ],
    "fsq_backward": [
        (X, X, None, LEVELS, False, "tanh", 1, None),
        (IMAGE.half(), IMAGE.half(), MASK.reshape(2, 3, 4), LEVELS, True, "clamp", 1, None),
        (X, X, MASK, LEVELS, False, "tanh", 1, "reference"),
    ],
    "fsq_lookup": [
        (INDICES, LEVELS, False, 1),
        (IMAGE_INDICES.int(), LEVELS, True, 1),
        (INDICES[:0], LEVELS, False, 0),
    ],
    "lookup": [(INDICES, CODES, 1), (IMAGE_INDICES, CODES.half(), 1), (INDICES[:0], CODES, 0)],
    "lookup_backward": [(X, INDICES, 11, 1), (IMAGE.half(), IMAGE_INDICES, 11, 1)],
    "all_reduce_": [(SUMS.clone(), ALONE), (COUNTS.clone(), ALONE)],
    "code_sums": [
        (X, INDICES, 11, None, "l2", 1, None),
        (IMAGE, IMAGE_INDICES, 11, MASK.reshape(2, 3, 4), "cosine", 1, "reference"),
    ],
    "normalize_codes": [(CODES,), (CODES.bfloat16(),)],
    "ema_update_": [(*_ema(), COUNTS, SUMS, 0.9, 1e-5)],
    "observe_": [
        (_floats(), CODES.clone(), ROWS.clone(), ZERO.clone(), COUNTS, SUMS, ROWS, FOUND),
        (_floats(), None, None, ZERO.clone(), COUNTS, None, None, None),
        (
            *(_floats(), None, None, ZERO.clone(), COUNTS, None, None, None),
            *(_totals(), _totals()),
        ),
    ],
    "advance_": [
        (*_ema(), _floats(), SUMS.clone(), ROWS, ONE.clone(), CLOCK.clone(), *_MARKS, *_ADVANCE),
        (
            *(*_ema()[:2], None, _floats(), None, None, ONE.clone(), CLOCK.clone()),
            *(None, None, None, *_ADVANCE),
        ),
        (
            *(*_ema(), _floats(), SUMS.clone(), ROWS, ONE.clone(), CLOCK.clone(), *_MARKS),
            *(*_ADVANCE, _totals(), 40),
        ),
    ],
    "draw_code": [
        (X, CODES, CODES[:, 0], MASK, CLOCK, 3),
        (X.half().T.contiguous().T, CODES, None, None, CLOCK, 0),
    ],
    "draw_levels": [(ZERO, 5, 8, 0.5, 2, 3, 1)],
    "gather_rows": [(X, MASK, 1, ALONE), (IMAGE.half(), None, 1, ALONE)],
    "nearest_shard": [
        (X, CODES, None, 3, "l2", 1, None, ALONE),
        (IMAGE, CODES, None, 0, "cosine", 1, "reference", None),
    ],
    "shard_rows": [(INDICES, CODES, 0, 11, ALONE), (IMAGE_INDICES, CODES, 0, 11, None)],
    "kmeans_finish_": [(ZERO.clone(), FOUND, torch.tensor(-1))],
    "kmeans_start_": [
        (CODES.clone(), ZERO, ROWS, FOUND, None),
        (CODES.clone(), ZERO, ROWS, FOUND, COUNTS % 2),
    ],
    "kmeans_step_": [
        (*_ema(), ZERO, COUNTS, SUMS, FOUND, COUNTS % 2, "l2"),
        (CODES.clone(), None, None, ZERO, COUNTS, SUMS, FOUND, None, "cosine"),
    ],
    "replicate_": [([*_ema()[:2], CLOCK.clone()], [ZERO.clone()], [torch.tensor(-1)], ALONE)],
    "sample_codes": [
        (X, CODES, LOGSUMEXP, CLOCK, 3, 1.0, 1, None),
        (IMAGE.half(), CODES, LOGSUMEXP.reshape(2, 3, 4), CLOCK, 0, 0.5, 1, "reference"),
    ],
    "sample_residuals": [
        (X, BOOKS, BOOK_INDICES, None, None, CLOCK, 8, 0, 1),
        (
            *(IMAGE, CODES[None], IMAGE_BOOK_INDICES, MASK.reshape(2, 3, 4), IMAGE_INDICES % 4),
            *(CLOCK, 30, 1, 1),
        ),
    ],
    "snapshot": [(CODES,), (CODES.T,)],
    "soft_assign": [
        (X, CODES, None, 1.0, 1, True, None),
        (IMAGE.half(), CODES, MASK.reshape(2, 3, 4), 0.5, 1, False, "reference"),
        (X.double(), CODES, MASK, 2.0, 1, True, None),
    ],
    "soft_assign_backward": [
        (LOGSUMEXP, LOGSUMEXP, CODES[:, 0], *_SOFT, 1, True, True, None),
        (LOGSUMEXP, None, None, *_SOFT, 1, False, True, "reference"),
        (None, LOGSUMEXP, None, *_SOFT, 1, True, False, None),
    ],
    "sample_rows": [
        (X, None, CLOCK, 8, 0, "l2", 1),
        (IMAGE, MASK.reshape(2, 3, 4), CLOCK, 30, 1, "cosine", 1),
    ],
    "soft_lookup": [
        (X, CODES, CODES[:, 0], CODES[:, :4], MASK, ONE.float(), CLOCK, 3, True),
        (X.half(), CODES, None, None, None, None, None, 0, False),
        (X.double(), CODES, None, CODES, None, None, None, 0, False),
    ],
    "soft_lookup_backward": [
        (
            *(X[:, :4], X[:, 0], CODES[:, 0], X, CODES, CODES[:, 0], CODES[:, :4], MASK),
            *(ONE.float(), CLOCK, 3, True, True, True),
        ),
        (
            *(None, X[:, 0], None, X.half(), CODES, None, None, None, None, None, 0),
            *(True, False, False),
        ),
    ],
    "tick_": [(ZERO.clone(),)],
}


@pytest.fixture(autouse=True, scope="module")
def _group_of_one() -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


def test_the_table_holds_every_op() -> None:
    registered = {
        name.removeprefix("vqkernels::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("vqkernels::")
    }
    assert set(ARGUMENTS) == registered


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param(name, arguments, id=f"{name}-{number}")
        for name, argument_lists in ARGUMENTS.items()
        for number, arguments in enumerate(argument_lists)
    ],
)
def test_opcheck_passes(name: str, arguments: tuple[Any, ...]) -> None:
    torch.library.opcheck(getattr(ops, name), arguments)


def _fake_and_real(name: str, arguments: tuple[Any, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    op = getattr(ops, name)
    real = op(*arguments)
    with FakeTensorMode() as mode:
        fake = op(*torch.utils._pytree.tree_map_only(Tensor, mode.from_tensor, arguments))
    real, fake = ((out,) if isinstance(out, Tensor) else out for out in (real, fake))
    return zip(fake, real, strict=True)


def _assert_same_metadata(fake: Tensor, real: Tensor) -> None:
    assert fake.shape == real.shape
    assert fake.dtype == real.dtype
    assert fake.device == real.device
    if real.numel():  # strides of an empty tensor address nothing
        assert fake.stride() == real.stride()


@pytest.mark.parametrize("dtype", [*cases.DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_fakes_have_the_strides_of_the_results(layout: str, dtype: torch.dtype) -> None:
    x, channel_dim = cases.LAYOUTS[layout](X.to(dtype))
    channel_dim %= x.ndim
    indices = torch.zeros(x.movedim(channel_dim, -1).shape[:-1], dtype=torch.int64)
    mask = indices == 0
    weights = ("rotation", 0.25, 1.0)
    quantized = x.to(torch.float64 if dtype == torch.float64 else torch.float32)
    loss = torch.ones((), dtype=quantized.dtype)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("nearest_code", (x, CODES, None, "l2", channel_dim, None)),
        ("nearest_codes", (x, CODES, 3, "l2", channel_dim, None)),
        ("vq_forward", (x, CODES, None, mask, "l2", channel_dim, True, None)),
        ("vq_assigned", (x, CODES, indices, mask, "l2", channel_dim, True, None)),
        (
            "vq_backward",
            (x, loss, x, quantized, indices, 11, "l2", *weights, channel_dim, True, True, None),
        ),
        ("residual", (x, BOOKS, None, 3, mask, indices, channel_dim, True, True, True, None)),
        (
            "residual_backward",
            (
                *(x, loss, x, quantized, torch.empty_like(x, dtype=quantized.dtype)),
                *(BOOKS.to(quantized.dtype), mask, indices.numel(), False),
                *(*weights, channel_dim, dtype, True, True, None),
            ),
        ),
        ("fsq", (x, mask, LEVELS, False, "tanh", 3456, channel_dim, None)),
        ("fsq_backward", (x, x, mask, LEVELS, False, "tanh", channel_dim, None)),
        ("fsq_lookup", (indices, LEVELS, False, channel_dim)),
        ("lookup", (indices, CODES.to(dtype), channel_dim)),
        ("lookup_backward", (x, indices, 11, channel_dim)),
        ("code_sums", (x, indices, 11, mask, "l2", channel_dim, None)),
        ("sample_rows", (x, mask, CLOCK, 4, 0, "l2", channel_dim)),
        ("sample_codes", (x, CODES, indices.double(), CLOCK, 0, 1.0, channel_dim, None)),
        ("soft_assign", (x, CODES, mask, 1.0, channel_dim, True, None)),
        (
            "soft_assign_backward",
            (
                *(indices.double(), None, None, x, CODES, mask, indices.double()),
                *(indices.double(), 1.0, channel_dim, True, True, None),
            ),
        ),
    ]
    for name, arguments in calls:
        for fake, real in _fake_and_real(name, arguments):
            _assert_same_metadata(fake, real)


def test_ops_run_on_meta_tensors() -> None:
    x, codes = X.to("meta"), CODES.to("meta")
    indices, distances = ops.nearest_code(x, codes, None, "l2", 1, None)
    assert indices.device.type == distances.device.type == "meta"
    quantized = ops.vq_forward(x, codes, None, None, "l2", 1, True, None)[0]
    assert quantized.shape == x.shape
