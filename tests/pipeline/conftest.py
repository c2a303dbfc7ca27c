"""One thread for every test here: two of them fight over the cores of a busy machine.

Work on 8x8 images is too small to share, and a thread that waits for another which is not running
has been seen to slow a step from 20 ms to a second.
"""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
