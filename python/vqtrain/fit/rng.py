"""The state of every random number generator that training may draw from, as tensors."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils import set_seed  # type: ignore[import-untyped]
from torch import Tensor


def separate(seed: int, rank: int) -> None:
    """Lets a rank draw other numbers than the others; rank 0 goes on as it would alone."""
    if rank:
        set_seed(seed + rank)


def states() -> dict[str, Tensor]:
    """States of torch (CPU and, where there is one, the current GPU), numpy and Python."""
    _, words, position, has_gauss, gauss = np.random.get_state()
    python_words, python_gauss = random.getstate()[1:]
    found = {
        "torch": torch.get_rng_state(),
        "numpy.words": torch.tensor([*map(int, words), position]),
        "numpy.gauss": torch.tensor([has_gauss, gauss], dtype=torch.float64),
        "python.words": torch.tensor(python_words),
        # As numpy says it: whether the second number of a pair is waiting, and which.
        "python.gauss": torch.tensor(
            [python_gauss is not None, python_gauss or 0.0], dtype=torch.float64
        ),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def restore(found: dict[str, Tensor]) -> None:
    """Inverse of `states`."""
    # Copies: torch 2.13 crashes on a view that does not begin where its storage does, and the row
    # of any rank but the first is one.
    torch.set_rng_state(found["torch"].clone())
    *words, position = found["numpy.words"].tolist()
    has_gauss, gauss = found["numpy.gauss"].tolist()
    np.random.set_state(
        ("MT19937", np.array(words, dtype=np.uint32), position, int(has_gauss), gauss)
    )
    waiting, gauss = found["python.gauss"].tolist()
    random.setstate((3, tuple(found["python.words"].tolist()), gauss if waiting else None))
    if "cuda" in found and torch.cuda.is_available():
        torch.cuda.set_rng_state(found["cuda"].clone())


@contextmanager
def set_aside(seed: int) -> Iterator[None]:
    """Inside, torch draws from `seed`; afterwards it goes on where it was."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
