"""torch.func: its transforms are refused in one voice, functional_call works."""

from __future__ import annotations

from collections.abc import Callable

import cases
import pytest
import torch
from modules import D, K, assert_same_state, batches, quantizer, snapshot
from torch import Tensor
from torch.func import functional_call, grad, jacfwd, jvp, vmap

import vqkernels as vq

CODES = batches(1, K, seed=1)[0]
INDICES = torch.tensor([3, 0, 5])
MODULE, RESIDUAL = quantizer(), vq.nn.ResidualVQ(quantizer, levels=2)

TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], object]] = {
    "grad": lambda function, x: grad(lambda x: function(x).sum())(x),
    "vmap": lambda function, x: vmap(function)(x[None]),
    "jvp": lambda function, x: jvp(function, (x,), (x,)),
    "jacfwd": lambda function, x: jacfwd(function)(x),
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest_code": lambda x: vq.nearest_code(x, CODES).distances,
    "vector_quantize": lambda x: vq.vector_quantize(x, CODES).loss,
    "residual_quantize": lambda x: vq.residual_quantize(x, CODES, levels=2).loss,
    "lookup": lambda x: vq.lookup(INDICES, x),
    "code_sums": lambda x: vq.code_sums(x, x[:, 0].long(), K).sums,
    "prepare": lambda x: vq.prepare(x).codebook,
    "module": lambda x: MODULE(x).quantized,
    "encode": lambda x: MODULE.encode(x).float(),
    "decode": lambda x: MODULE.decode(INDICES) * x.sum(),
    "ResidualVQ": lambda x: RESIDUAL(x).quantized,
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_transforms_are_refused(
    function: Callable[[Tensor], Tensor],
    transform: Callable[[Callable[[Tensor], Tensor], Tensor], object],
) -> None:
    with pytest.raises(RuntimeError, match=r"must not be inside a torch\.func transform"):
        transform(function, batches(1, 8)[0].abs())


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_transform_is_refused_too() -> None:
    """Traced into, it would return a tangent of zero."""
    torch._dynamo.reset()
    call = torch.compile(
        lambda x: jvp(FUNCTIONS["vector_quantize"], (x,), (x,))[1],
        backend="eager",
        fullgraph=True,
    )
    with pytest.raises(Exception, match=r"must not be inside a torch\.func transform"):
        call(batches(1)[0])


@pytest.mark.parametrize("update", [vq.EMA(), vq.Gradient(), None], ids=str)
def test_functional_call_reads_and_moves_the_given_state(update: object) -> None:
    module, other = (
        quantizer(update=update, init="normal"),
        quantizer(1, update=update, init=CODES),
    )
    before, given = snapshot(module), snapshot(other)
    for x in batches(3):
        out = functional_call(module, given, (x,))
        assert torch.equal(out.quantized, other(x).quantized)
    assert_same_state(module, before)
    for name, value in other.state_dict().items():
        assert torch.equal(given[name], value), name


def test_functional_call_gives_the_gradient_of_the_given_codebook() -> None:
    module = quantizer(update=vq.Gradient(), init="normal")
    (x,) = batches(1)
    codes = torch.randn(K, D, generator=cases.generator(5)).requires_grad_()
    functional_call(module, {"codebook": codes}, (x,)).loss.backward()
    expected = codes.detach().clone().requires_grad_()
    vq.vector_quantize(x, expected).loss.backward()
    assert torch.equal(codes.grad, expected.grad)
    assert module.codebook.grad is None
