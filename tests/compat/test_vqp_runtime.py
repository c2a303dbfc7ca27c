"""Around the stand-ins for vector-quantize-pytorch: compiler, checkpointing, memory."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from backends import available
from compat.vqp_pairs import leaves
from torch import nn
from torch.utils.checkpoint import checkpoint

from vqkernels.compat.vector_quantize_pytorch import (
    GroupedResidualVQ,
    ResidualVQ,
    VectorQuantize,
)

D, K = 16, 32
MODULES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "one": (VectorQuantize, {}),
    "revived heads": (
        VectorQuantize,
        {
            "heads": 2,
            "codebook_dim": 4,
            "separate_codebook_per_head": True,
            "threshold_ema_dead_code": 2,
        },
    ),
    "sampled": (VectorQuantize, {"use_cosine_sim": True, "stochastic_sample_codes": True}),
    "learnable": (VectorQuantize, {"learnable_codebook": True, "ema_update": False}),
    "k-means": (VectorQuantize, {"kmeans_init": True}),
    "levels": (ResidualVQ, {"num_quantizers": 3}),
    "shared levels": (ResidualVQ, {"num_quantizers": 3, "shared_codebook": True}),
    "groups": (GroupedResidualVQ, {"num_quantizers": 2, "groups": 2}),
}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    kind, options = MODULES[name]
    return kind(dim=D, codebook_size=K, **options)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("one", "levels")])
def test_a_step_compiles_as_one_graph(name: str) -> None:
    """Theirs breaks the graph three times and more."""
    eager = made(name)
    module = copy.deepcopy(eager)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for training in (True, False):
        eager.train(training)
        module.train(training)
        for seed in range(2):
            x = torch.randn(2, 40, D, generator=torch.Generator().manual_seed(seed))
            results = []
            for call in (eager, compiled):
                inputs = x.clone().requires_grad_()
                out = call(inputs)
                if training:
                    (out[0].sum() + out[2].sum()).backward()
                results.append([*leaves(out), inputs.grad if training else inputs])
            for one, other in zip(*results, strict=True):
                assert torch.equal(one, other)
    for key, value in eager.state_dict().items():
        assert torch.equal(module.state_dict()[key], value), key


@pytest.mark.parametrize("name", ["one", "levels", "sampled"])
def test_a_checkpointed_region_is_refused_where_its_codebook_moves(name: str) -> None:
    """Theirs counts the batch twice, and computes the gradient with other codes."""
    module = made(name)
    out = checkpoint(module, torch.randn(2, 40, D, requires_grad=True), use_reentrant=False)
    with pytest.raises(RuntimeError, match="a recompute must see the codebook"):
        (out[0].sum() + out[2].sum()).backward()


@pytest.mark.parametrize("arguments", [{"freeze_codebook": True}, {}], ids=["frozen", "gradient"])
def test_a_checkpointed_region_with_a_codebook_at_rest_has_its_gradient(
    arguments: dict[str, Any],
) -> None:
    module = made("one" if arguments else "learnable")
    x = torch.randn(2, 40, D)
    grads = []
    for recompute in (True, False):
        inputs = x.clone().requires_grad_()
        if recompute:
            out = checkpoint(module, inputs, use_reentrant=False, **arguments)
        else:
            out = module(inputs, **arguments)
        (out[0].sum() + out[2].sum()).backward()
        grads.append(inputs.grad)
    assert torch.equal(*grads)


_PEAK = """
import torch
from vqkernels.compat.vector_quantize_pytorch import ResidualVQ, VectorQuantize
torch.set_num_threads(2)

def kilobytes(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1])

def step(module, x):
    out = module(x)
    (out[0].sum() + out[2].sum()).backward()

one = VectorQuantize(dim=8, codebook_size=8192, threshold_ema_dead_code=2)
levels = ResidualVQ(dim=8, codebook_size=8192, num_quantizers=2)
for module in (one, levels):
    step(module, torch.randn(1, 64, 8, requires_grad=True))
x = torch.randn(1, 32768, 8, requires_grad=True)
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts again from here
before = kilobytes("VmRSS")
for module in (one, levels):
    step(module, x)
    with torch.no_grad():
        module.eval()(x)
print((kilobytes("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif("native" not in available(), reason="native is not built")
def test_nothing_grows_with_rows_times_codes() -> None:
    """N x K would be 268e6 entries; x is 1 MB, and so is what a level keeps for its backward."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError as error:
        pytest.skip(f"the high-water mark of memory cannot be reset here: {error}")
    done = subprocess.run(
        [sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 60
