"""vqkernels: the public calls as a user writes them, the search once per backend and level."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

import vqkernels as vq
from benchmarks.peers.provider import Call, Provider, UnavailableError
from benchmarks.peers.step import step_of

_WARM_UPS = 3  # what is compiled and allocated on first calls stays out of the graph


def search(backend: str | None = None) -> Callable[[Tensor, Tensor], Call]:
    def build(x: Tensor, codebook: Tensor) -> Call:
        return lambda: vq.nearest_code(x, codebook, backend=backend).indices

    return build


def search_at(level: str) -> Callable[[Tensor, Tensor], Call]:
    """The native backend held to an instruction-set level."""

    def build(x: Tensor, codebook: Tensor) -> Call:
        core = importlib.import_module("vqkernels._native")
        if level not in core.isa_levels():
            raise UnavailableError(f"this CPU has no {level}")

        def call() -> Tensor:
            before = core.isa()
            core.force_isa(level)
            try:
                return vq.nearest_code(x, codebook, backend="native").indices
            finally:
                core.force_isa(before)

        return call

    return build


def all_levels(x: Tensor, codebooks: Tensor) -> Call:
    return lambda: vq.residual_quantize(x, codebooks).indices


def training_step(x: Tensor, codebook: Tensor) -> Call:
    """Forward and backward of the module, from the given codebook.

    Its defaults, but for the revival of dead codes, which the peers leave off by default: revived
    codes may be equal, and a search skips equal codes. Codebooks (L, K, D) are those of the levels
    of a ResidualVQ.
    """

    return _step_of(_module(codebook).to(x.device), x)


def training_step_in_a_graph(x: Tensor, codebook: Tensor) -> Call:
    """The same step captured once and replayed: forward, backward and the codebook's update."""
    if x.device.type != "cuda":
        raise UnavailableError("CUDA graphs need a CUDA device")
    module = _module(codebook).to(x.device)
    before = {name: value.clone() for name, value in module.named_buffers()}
    step = _step_of(module, x)
    beside = torch.cuda.Stream(x.device)
    beside.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UPS):
            step()
    torch.cuda.current_stream(x.device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        indices = step()
    for name, value in module.named_buffers():  # the first replay is the first step
        value.copy_(before[name])

    def replay() -> Tensor:
        graph.replay()
        return indices

    return replay


def _step_of(module: nn.Module, x: Tensor) -> Call:
    def forward(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = module(rows)
        return out.quantized, out.indices, out.loss

    return step_of(forward, x)


def _module(codebook: Tensor) -> nn.Module:
    def one(codes: Tensor) -> vq.nn.VectorQuantizer:
        return vq.nn.VectorQuantizer(*codes.shape, init=codes, revive=None, channel_dim=-1)

    if codebook.ndim == 2:
        return one(codebook)
    inits = iter(codebook)
    return vq.nn.ResidualVQ(lambda: one(next(inits)), len(codebook))


def _ours(name: str, build: Callable[[Tensor, Tensor], Call], **options: object) -> Provider:
    return Provider(name, build, package="vqkernels", module="vqkernels", **options)  # type: ignore[arg-type]


SEARCH = (
    _ours("vqkernels", search()),
    _ours("vqkernels avx512", search_at("avx512"), devices=("cpu",), full_only=True),
    _ours("vqkernels avx2", search_at("avx2"), devices=("cpu",), full_only=True),
    _ours("vqkernels portable", search_at("portable"), devices=("cpu",), full_only=True),
    _ours("vqkernels triton", search("triton"), devices=("cuda",), full_only=True),
    _ours("vqkernels reference", search("reference"), largest=1 << 20, full_only=True),
)
RESIDUAL = (_ours("vqkernels", all_levels),)
TRAINING = (
    _ours("vqkernels", training_step),
    _ours("vqkernels, CUDA graph", training_step_in_a_graph, devices=("cuda",)),
)
