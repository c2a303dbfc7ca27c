"""What SimVQ, IBQ and GumbelVQ, which an optimizer trains, promise alike."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import cases
import pytest
import torch
from modules import (
    D,
    K,
    assert_checkpointed_as_plain,
    assert_same_state,
    batches,
    make_optimizer,
    snapshot,
    train,
)
from torch import Tensor, nn

import vqkernels as vq

KINDS: dict[str, Callable[..., Any]] = {
    "SimVQ": lambda **o: vq.nn.SimVQ(K, D, **o),
    "SimVQ rotation": lambda **o: vq.nn.SimVQ(K, D, estimator="rotation", **o),
    "IBQ": lambda **o: vq.nn.IBQ(K, D, **o),
    "IBQ entropy": lambda **o: vq.nn.IBQ(K, D, entropy=vq.Entropy(0.1, 0.5), **o),
    "Gumbel": lambda **o: vq.nn.GumbelVQ(K, D, **o),
    "Gumbel soft": lambda **o: vq.nn.GumbelVQ(K, D, hard=False, **o),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def make(kind: str, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return KINDS[kind](**options)


def _step(
    module: nn.Module, x: Tensor, mask: Tensor | None = None, autocast: bool = False
) -> tuple[vq.VQOutput, list[Tensor | None]]:
    """The output, and the gradients of x and the parameters."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = module(x, mask)
    total = (out.quantized.float() ** 2).sum() + out.loss
    leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
    return out, list(torch.autograd.grad(total, leaves, allow_unused=True))


@kinds
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_only_the_position_of_a_row_counts(kind: str, layout: str) -> None:
    given = torch.randn(24, D, generator=cases.generator(0))
    laid, channel_dim = cases.LAYOUTS[layout](given)
    rows = laid.movedim(channel_dim, -1).reshape(-1, D)
    expected, wanted = _step(make(kind), rows)
    out, grads = _step(make(kind, channel_dim=channel_dim), laid)
    assert torch.equal(out.indices.flatten(), expected.indices)
    flat = out.quantized.movedim(channel_dim, -1).reshape(-1, D)
    assert torch.equal(flat, expected.quantized)
    grad = grads[0].movedim(channel_dim, -1).reshape(-1, D)
    torch.testing.assert_close([grad, *grads[1:]], wanted)
    torch.testing.assert_close(out.loss, expected.loss)


@kinds
def test_what_lies_under_the_mask_counts_nowhere(kind: str) -> None:
    (x,) = batches(1)
    mask = torch.arange(64) % 3 != 1
    results = [
        _step(make(kind), torch.where(mask[:, None], x, other), mask)
        for other in (x, torch.nan, torch.inf)
    ]
    first, first_grads = results[0]
    assert torch.equal(first.indices == -1, ~mask)
    assert torch.equal(first.quantized[~mask], x[~mask])
    torch.testing.assert_close(first_grads[0][~mask], 2.0 * x[~mask])
    assert int(first.usage.counts.sum()) == int(mask.sum())
    for out, grads in results[1:]:
        assert torch.equal(out.indices, first.indices)
        assert torch.equal(out.quantized[mask], first.quantized[mask])
        assert torch.equal(out.loss, first.loss)
        assert torch.equal(grads[0][mask], first_grads[0][mask])
        for grad, wanted in zip(grads[1:], first_grads[1:], strict=True):
            assert torch.equal(grad, wanted)


@kinds
def test_a_masked_batch_is_a_batch_of_its_valid_rows(kind: str) -> None:
    """In eval mode, where nothing is drawn by the number of a row."""
    (x,) = batches(1)
    mask = torch.arange(64) % 3 != 1
    module = make(kind).eval()
    out, grads = _step(module, x, mask)
    wanted, wanted_grads = _step(module, x[mask])
    assert torch.equal(out.indices[mask], wanted.indices)
    torch.testing.assert_close(out.loss, wanted.loss)
    grads[0] = grads[0][mask]
    torch.testing.assert_close(grads, [wanted_grads[0], *wanted_grads[1:]])


@kinds
def test_a_batch_without_a_valid_row_has_no_loss(kind: str) -> None:
    (x,) = batches(1)
    out, grads = _step(make(kind), x, torch.zeros(64, dtype=torch.bool))
    assert out.loss == 0
    assert torch.equal(out.quantized, x)
    for grad in grads[1:]:
        assert (grad == 0).all()


@kinds
def test_a_row_that_is_not_finite_is_nan_and_changes_no_other(kind: str) -> None:
    """As if it were masked, but for its own values and the loss."""
    (x,) = batches(1)
    mask = torch.ones(64, dtype=torch.bool)
    mask[[3, 20]] = False
    bad = x.clone()
    bad[3, 1], bad[20, 0] = torch.nan, -torch.inf
    outs, grads = [], []
    for rows, valid in ((x, mask), (bad, None)):
        module, leaf = make(kind), rows.clone().requires_grad_()
        out = module(leaf, valid)
        leaves = [leaf, *module.parameters()]
        upstream = torch.ones_like(out.quantized)
        outs.append(out)
        grads.append(torch.autograd.grad(out.quantized, leaves, upstream, allow_unused=True))
    expected, out = outs
    assert out.loss.isnan()
    assert out.indices[~mask].tolist() == [0, 0]
    assert out.quantized[~mask].isnan().all()
    assert torch.equal(out.quantized[mask], expected.quantized[mask])
    assert torch.equal(out.usage.counts, expected.usage.counts)
    assert torch.equal(grads[1][0][mask], grads[0][0][mask])
    if "SimVQ" not in kind:  # whose codes get their gradient from the loss alone
        for found, wanted in zip(grads[1][1:], grads[0][1:], strict=True):
            assert torch.equal(found, wanted)


@kinds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_rows_are_their_float32_values(kind: str, dtype: torch.dtype) -> None:
    (x,) = batches(1)
    x = x.to(dtype)
    out, grads = _step(make(kind), x)
    wanted, wanted_grads = _step(make(kind), x.float())
    assert torch.equal(out.indices, wanted.indices)
    assert torch.equal(out.quantized, wanted.quantized.to(dtype))
    torch.testing.assert_close(out.loss, wanted.loss)
    for grad, exact in zip(grads, wanted_grads, strict=True):
        # quantized, and with it the upstream gradient, has been rounded: sums of 64 such values.
        if grad is not None:
            band = 8 * torch.finfo(dtype).eps * float(exact.abs().max())
            assert float((grad.float() - exact).abs().max()) <= band


@kinds
def test_no_conversion_of_the_model_and_no_autocast_changes_anything(kind: str) -> None:
    (x,) = batches(1)
    expected, wanted = _step(make(kind), x)
    for convert in (nn.Module.half, nn.Module.bfloat16, nn.Module.double):
        module = convert(make(kind))
        assert {t.dtype for t in module.state_dict().values()} <= {torch.float32, torch.int64}
        out, _ = _step(module, x)
        assert torch.equal(out.quantized, expected.quantized)
    out, grads = _step(make(kind), x, autocast=True)
    assert torch.equal(out.quantized, expected.quantized)
    assert torch.equal(out.loss, expected.loss)
    for grad, want in zip(grads, wanted, strict=True):
        assert torch.equal(grad, want)


@kinds
def test_compiled_steps_are_the_eager_ones(kind: str) -> None:
    module = make(kind)
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    mask = torch.arange(64) % 3 != 1
    for mode in (True, False):
        module.train(mode)
        compiled.train(mode)
        for x in batches(2):
            expected, wanted = _step(module, x, mask)
            out, grads = _step(compiled, x, mask)
            assert torch.equal(out.indices, expected.indices)
            assert torch.equal(out.quantized, expected.quantized)
            torch.testing.assert_close(out.loss, expected.loss)
            torch.testing.assert_close(grads, wanted)


@kinds
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_region_has_the_same_gradients(kind: str, reentrant: bool) -> None:
    assert_checkpointed_as_plain(lambda: make(kind), reentrant)


@kinds
def test_a_loaded_module_goes_on_as_the_saved_one(kind: str) -> None:
    steps = batches(6)
    whole = make(kind)
    optimizer = make_optimizer(whole)
    train(whole, steps[:3], optimizer)
    file = io.BytesIO()
    torch.save([whole.state_dict(), optimizer.state_dict()], file)
    train(whole, steps[3:], optimizer)
    again = KINDS[kind]()  # from other draws
    resumed = make_optimizer(again)
    state, of_optimizer = torch.load(io.BytesIO(file.getvalue()))
    again.load_state_dict(state)
    resumed.load_state_dict(of_optimizer)
    train(again, steps[3:], resumed)
    assert_same_state(again, snapshot(whole))
    for other in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert_same_state(other, snapshot(whole))


@kinds
def test_a_state_that_does_not_fit_changes_nothing(kind: str) -> None:
    module = make(kind)
    before = snapshot(module)
    for name, tensor in before.items():
        if tensor.ndim:
            bad = {**snapshot(KINDS[kind]()), name: tensor[:-1]}
            with pytest.raises(RuntimeError, match="must have shape"):
                module.load_state_dict(bad)
    assert_same_state(module, before)


@kinds
def test_decode_gives_the_quantized_rows_and_encode_the_indices_of_eval_mode(kind: str) -> None:
    (x,) = batches(1)
    module = make(kind).eval()
    out = module(x)
    assert torch.equal(module.encode(x), out.indices)
    assert torch.equal(module.decode(out.indices), out.quantized)
    assert (module.decode(torch.tensor([-1])) == 0).all()
    before = snapshot(module)
    module.encode(x)
    module.init_codebook(x)
    module.flush()
    assert_same_state(module, before)


@kinds
def test_they_stand_behind_projections_and_in_groups(kind: str) -> None:
    module = vq.nn.Projected(vq.nn.GroupedVQ(lambda: make(kind), 2), in_dim=5)
    x = torch.randn(2, 5, 9, requires_grad=True)
    out = module(x)
    assert out.indices.shape == (2, 9, 2)
    (out.quantized.square().sum() + out.loss).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    module.eval()
    torch.testing.assert_close(module.decode(module.encode(x)), module(x).quantized)


@kinds
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m(torch.zeros(4, D + 1)), ValueError, "x must have size 6"),
        (lambda m: m(torch.zeros(4, D, dtype=torch.int64)), TypeError, "x must be float"),
        (
            lambda m: m(torch.zeros(4, D), torch.ones(3, dtype=torch.bool)),
            ValueError,
            "mask must have shape",
        ),
        (lambda m: m(torch.zeros(4, D, device="meta")), ValueError, "x must be on the device"),
    ],
)
def test_bad_input_is_named_before_anything_moves(
    kind: str, call: Any, error: type[Exception], message: str
) -> None:
    module = make(kind)
    before = snapshot(module)
    with pytest.raises(error, match=message):
        call(module)
    assert_same_state(module, before)


@kinds
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"channel_dim": 1.0}, TypeError, "channel_dim must be an integer"),
        ({"backend": "cpu"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_options_are_named(
    kind: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(kind, **options)
