"""vqkernels.compat.encodec against encodec 0.1.1."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compat import agreement, libraries
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import encodec as ours

library = libraries.encodec()
theirs = library.quantization.core_vq
their_quantizer = library.quantization.vq.ResidualVectorQuantizer

K, D, N, LEVELS = 16, 6, 48, 3
CLASSES = ("EuclideanCodebook", "VectorQuantization", "ResidualVectorQuantization")


def pair(name: str, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """A module of theirs in training and ours with its state."""
    options = {"dim": D, "codebook_size": K, "kmeans_init": False, **options}
    if name == "ResidualVectorQuantization":
        options = {"num_quantizers": LEVELS, **options}
    torch.manual_seed(seed)
    there = getattr(theirs, name)(**options)
    for module in there.modules():  # codes that have been in use: fresh ones have size 0
        if isinstance(module, theirs.EuclideanCodebook):
            module.cluster_size.fill_(3.0)
            module.embed_avg.copy_(module.embed * 3.0)
    here = getattr(ours, name)(**options)
    here.load_state_dict(there.state_dict())
    return here, there


def batch(name: str, seed: int = 1, n: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, n, D) if name == "EuclideanCodebook" else (2, D, n)
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("kmeans_init", [False, True])
def test_a_new_module_has_their_state(name: str, kmeans_init: bool) -> None:
    options: dict[str, Any] = {"dim": D, "codebook_size": K, "kmeans_init": kmeans_init}
    if name == "ResidualVectorQuantization":
        options["num_quantizers"] = LEVELS
    made = []
    for library_of in (ours, theirs):
        torch.manual_seed(3)
        made.append(getattr(library_of, name)(**options))
    here, there = (module.state_dict() for module in made)
    assert here.keys() == there.keys()
    for key, value in there.items():
        assert torch.equal(here[key], value), key
        assert here[key].dtype == value.dtype


@pytest.mark.parametrize("name", CLASSES)
def test_a_checkpoint_goes_both_ways(name: str) -> None:
    here, there = pair(name)
    here(batch(name))
    there.load_state_dict(here.state_dict(), strict=True)
    here.load_state_dict(there.state_dict(), strict=True)
    for key, value in there.state_dict().items():
        assert torch.equal(here.state_dict()[key], value)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("training", [True, False])
def test_a_call_gives_their_values_and_gradients(name: str, training: bool) -> None:
    here, there = pair(name)
    x = batch(name)
    results = []
    for module in (here.train(training), there.train(training)):
        if training and name != "EuclideanCodebook":
            results.append(agreement.gradients(module, x, lambda m, x: m(x)))
        else:
            results.append((module(x.clone().requires_grad_()), None, None))
    (out, grad, _), (expected, expected_grad, _) = results
    for one, other in zip(out, expected, strict=True):
        if other.is_floating_point():
            agreement.assert_in_one_band(one, other, terms=float(x.abs().max()))
        else:
            assert torch.equal(one, other)
        assert one.requires_grad == other.requires_grad
    if expected_grad is not None:
        agreement.assert_in_one_band(grad, expected_grad)


@pytest.mark.parametrize(
    "options",
    [
        {"codebook_dim": 4},
        {"commitment_weight": 0.5},
        {"commitment_weight": 0.0},
        {"decay": 0.8, "epsilon": 1e-3},
    ],
    ids=str,
)
def test_options_act_as_theirs(options: dict[str, Any]) -> None:
    here, there = pair("VectorQuantization", **options)
    x = batch("VectorQuantization")
    call: Callable[[nn.Module, Tensor], Any] = lambda module, x: module(x)  # noqa: E731
    out, grad, weights = agreement.gradients(here, x, call)
    expected, expected_grad, expected_weights = agreement.gradients(there, x, call)
    for one, other in zip(out, expected, strict=True):
        assert (
            torch.equal(one, other)
            if not other.is_floating_point()
            else agreement.assert_in_one_band(one, other, terms=4.0) is None
        )
    agreement.assert_in_one_band(grad, expected_grad, terms=1.0)
    for name, weight in expected_weights.items():
        agreement.assert_in_one_band(weights[name], weight, terms=10.0)
    for name, value in there.state_dict().items():
        agreement.assert_in_one_band(here.state_dict()[name], value)


@pytest.mark.parametrize("name", CLASSES)
def test_fifty_steps_stay_in_step(name: str) -> None:
    here, there = pair(name)
    codes = next(m for m in there.modules() if isinstance(m, theirs.EuclideanCodebook)).embed
    batches = []
    for seed in range(50):
        rows = agreement.with_margin(codes, 2 * N, seed).reshape(2, N, D)
        batches.append(rows if name == "EuclideanCodebook" else rows.transpose(1, 2))
    agreement.assert_steps_agree(here, there, batches)


def test_the_averages_can_be_changed_between_steps() -> None:
    here, there = pair("EuclideanCodebook")
    model = nn.Sequential(copy.deepcopy(there))
    vq.convert(model)
    for module in (here, there, model[0]):
        module(batch("EuclideanCodebook"))
        module.decay, module.epsilon = 0.5, 0.1
        module(batch("EuclideanCodebook", 2))
    for module in (here, model[0]):
        agreement.assert_in_one_band(module.embed, there.embed)
    with pytest.raises(ValueError, match="decay must be"):
        here.decay = 1.5
    vq.revert(model)
    assert (model[0].decay, model[0].epsilon) == (0.5, 0.1)


@pytest.mark.parametrize("name", CLASSES[1:])
@pytest.mark.parametrize("width", [D, 4])
@pytest.mark.parametrize("n", [N, 400])  # 400: all levels in one op
def test_encode_and_decode_give_theirs(name: str, width: int, n: int) -> None:
    here, there = pair(name, codebook_dim=width)
    x = batch(name, n=n)
    indices = here.encode(x)
    assert torch.equal(indices, there.encode(x))
    agreement.assert_in_one_band(here.decode(indices), there.decode(indices), terms=4.0)


@pytest.mark.parametrize("n_q", [None, 1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_fewer_levels_are_the_first_ones(n_q: int | None, training: bool) -> None:
    here, there = pair("ResidualVectorQuantization")
    x = batch("ResidualVectorQuantization", n=400)
    (q, indices, loss), (_, their_indices, their_loss) = (
        module.train(training)(x, n_q=n_q) for module in (here, there)
    )
    assert torch.equal(indices, their_indices)
    assert loss.shape == their_loss.shape
    if not training:
        agreement.assert_in_one_band(q, here.decode(indices))


def test_evaluation_runs_hooks_of_the_levels() -> None:
    here, _ = pair("ResidualVectorQuantization")
    seen: list[Tensor] = []
    here.eval().layers[1].register_forward_hook(lambda m, args, out: seen.append(out[1]))
    x = batch("ResidualVectorQuantization")
    _, indices, _ = here(x)
    assert torch.equal(seen[0], indices[1])
    assert torch.equal(indices, here.encode(x))


def test_a_commitment_after_the_first_level_has_no_gradient_unless_corrected() -> None:
    x = batch("ResidualVectorQuantization")
    found = {}
    for bug_compatible in (True, False):
        torch.manual_seed(0)
        options = {"dim": D, "codebook_size": K, "kmeans_init": False}
        module = ours.ResidualVectorQuantization(
            num_quantizers=LEVELS, bug_compatible=bug_compatible, **options
        )
        leaf = x.clone().requires_grad_()
        quantized, _, losses = module(leaf)
        found[bug_compatible] = [
            torch.autograd.grad(loss, leaf, retain_graph=True)[0].abs().max() for loss in losses
        ]
        (through,) = torch.autograd.grad(quantized.sum(), leaf)
        assert torch.equal(through, torch.ones_like(leaf))
    assert found[True][0] > 0
    assert found[True][1:] == [0.0, 0.0]
    assert all(gradient > 0 for gradient in found[False])


@pytest.mark.parametrize("bug_compatible", [True, False])
def test_kmeans_leaves_centroids_in_embed_avg_unless_corrected(bug_compatible: bool) -> None:
    there = theirs.EuclideanCodebook(D, K, kmeans_init=True)
    here = ours.EuclideanCodebook(D, K, kmeans_init=True, bug_compatible=bug_compatible)
    x = batch("EuclideanCodebook", n=200)
    for module in (here, there):
        module.eval()(x)
        assert bool(module.inited)
    assert torch.equal(there.embed_avg, there.embed)
    sums = here.embed if bug_compatible else here.embed * here.cluster_size[:, None]
    assert torch.equal(here.embed_avg, sums)
    assert here.cluster_size.sum() >= 400


@pytest.mark.parametrize("bug_compatible", [True, False])
def test_dead_codes_stay_dead_unless_corrected(bug_compatible: bool) -> None:
    torch.manual_seed(0)
    here = ours.EuclideanCodebook(D, K, bug_compatible=bug_compatible)
    there = theirs.EuclideanCodebook(D, K)
    codes, sizes = torch.randn(K, D), torch.full((K,), 10.0)
    codes[K // 2 :] += 100.0  # nothing is near them
    sizes[K // 2 :] = 1.0
    state = {**there.state_dict(), "embed": codes, "cluster_size": sizes}
    state["embed_avg"] = codes * sizes[:, None]
    for module in (here, there):
        module.load_state_dict(state)
        for seed in range(10):
            _, indices = module(batch("EuclideanCodebook", seed))
        used = int((indices.unique() >= K // 2).sum())
        assert (used == 0) == (module is there or bug_compatible)


def test_kmeans_runs_as_many_iterations_as_asked() -> None:
    rows = batch("EuclideanCodebook", n=500)
    found = []
    for iterations in (1, 2, 40, 41):
        module = ours.EuclideanCodebook(D, K, kmeans_init=True, kmeans_iters=iterations)
        module.init_codebook(rows)
        found.append((rows.reshape(-1, D) - module(rows)[0].reshape(-1, D)).square().mean())
    assert found[0] > found[1] > found[2]
    assert found[3] == pytest.approx(float(found[2]), rel=1e-2)


@pytest.mark.parametrize(("training", "n"), [(True, N), (False, N), (False, 400)])
def test_a_step_compiles_in_one_graph(training: bool, n: int) -> None:
    here, _ = pair("ResidualVectorQuantization")
    twin = copy.deepcopy(here.train(training))
    compiled = torch.compile(here, fullgraph=True, backend="aot_eager")
    x = batch("ResidualVectorQuantization", n=n)
    for _ in range(2):
        for one, other in zip(compiled(x), twin(x), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("width", [D, 4])
@pytest.mark.parametrize("first", ["half", "convert"])
def test_half_precision_keeps_the_state_in_float32(first: str, width: int, training: bool) -> None:
    _, there = pair("ResidualVectorQuantization", codebook_dim=width)
    model = nn.Sequential(there)
    for step in (model.half, lambda: vq.convert(model))[:: 1 if first == "half" else -1]:
        step()
    here: Any = model.train(training)[0]
    quantized, indices, losses = here(batch("ResidualVectorQuantization").half())
    assert quantized.dtype == here.decode(indices).dtype == torch.float16
    assert losses.dtype == torch.float32
    state = here.state_dict().items()
    assert all(value.dtype == torch.float32 for name, value in state if "_codebook" in name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_neither_codes_nor_state(dtype: torch.dtype) -> None:
    here, _ = pair("ResidualVectorQuantization")
    twin = copy.deepcopy(here)
    x = batch("ResidualVectorQuantization").to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = here(x)
    for one, other in zip(out, twin(x.float()), strict=True):
        assert torch.equal(one, other)
    for name, value in twin.state_dict().items():
        assert torch.equal(here.state_dict()[name], value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [N, 400])  # 400: all levels in one op
def test_encode_gives_the_codes_of_a_forward(n: int, dtype: torch.dtype) -> None:
    here, _ = pair("ResidualVectorQuantization")
    here.eval().to(dtype)
    x = batch("ResidualVectorQuantization", n=n).to(dtype)
    quantized, indices, _ = here(x)
    assert torch.equal(here.encode(x), indices)
    assert torch.equal(here.decode(indices), quantized)


@pytest.mark.parametrize("n", [N, 400])  # 400: all levels in one op
def test_evaluation_shows_a_row_that_is_not_finite(n: int) -> None:
    here, _ = pair("ResidualVectorQuantization")
    x = batch("ResidualVectorQuantization", n=n)
    x[1, 2, 7] = torch.nan
    quantized, indices, _ = here.eval()(x)
    assert quantized[1, :, 7].isnan().all()
    assert quantized.isnan().sum() == D
    assert not indices[:, 1, 7].any()


def test_a_row_that_is_not_finite_shows_and_counts_nowhere() -> None:
    here, _ = pair("VectorQuantization")
    twin = copy.deepcopy(here)
    x = batch("VectorQuantization")
    x[1, 2, -1] = torch.inf
    quantized, indices, loss = here(x)
    assert indices[1, -1] == 0
    assert quantized[1, :, -1].isnan().all()
    assert loss.isnan()
    _, counts = twin.encode(x).unique(return_counts=True)
    assert counts.sum() == 2 * N
    assert here._codebook.cluster_size.sum() == pytest.approx(0.99 * 3 * K + 0.01 * (2 * N - 1))


def test_bad_input_is_refused_before_anything_moves() -> None:
    here, _ = pair("VectorQuantization")
    before = copy.deepcopy(here.state_dict())
    with pytest.raises(ValueError, match="x must have"):
        here(torch.randn(2, D + 1, 5))
    assert all(torch.equal(value, before[name]) for name, value in here.state_dict().items())


def test_a_codebook_of_another_size_is_refused_by_name() -> None:
    here, _ = pair("ResidualVectorQuantization")
    state = here.state_dict()
    state["layers.1._codebook.embed"] = torch.zeros(K + 1, D)
    with pytest.raises(vq.compat.CheckpointError) as error:
        here.load_state_dict(state)
    assert error.value.code == "wrong_num_embeddings"


def small_model() -> Any:
    torch.manual_seed(0)
    size = {"dimension": D, "n_filters": 2, "ratios": [2, 2], "lstm": 0}
    modules = library.modules
    return library.model.EncodecModel(
        modules.SEANetEncoder(**size),
        modules.SEANetDecoder(**size),
        their_quantizer(dimension=D, n_q=4, bins=K, kmeans_init=False),
        target_bandwidths=[2.0, 4.0],
        sample_rate=1000,
        channels=1,
    )


def test_a_converted_model_evaluates_trains_and_reverts() -> None:
    model, original = small_model(), small_model()
    parameters = list(model.parameters())
    report = vq.convert(model)
    assert [entry.new for entry in report] == ["vqkernels.compat.encodec.ResidualVectorQuantizer"]
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    sound = torch.randn(2, 1, 256)
    for module in (model, original):
        module.eval().set_target_bandwidth(4.0)
    with torch.no_grad():
        [(codes, _)], [(their_codes, _)] = model.encode(sound), original.encode(sound)
        assert torch.equal(codes, their_codes)
        agreement.assert_in_one_band(model(sound), original(sound))
    for module in (model.train(), original.train()):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
        for _ in range(3):
            result = module.quantizer(module.encoder(sound), module.frame_rate, 4.0)
            loss = module.decoder(result.quantized).square().mean() + result.penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert type(result.bandwidth) is Tensor
    for (name, one), other in zip(
        model.state_dict().items(), original.state_dict().values(), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max())), name
    vq.revert(model)
    assert type(model.quantizer) is their_quantizer
    with torch.no_grad():
        agreement.assert_in_one_band(model.eval()(sound), original.eval()(sound), terms=100.0)


def test_the_quantizer_has_what_models_read() -> None:
    here = ours.ResidualVectorQuantizer(dimension=D, n_q=4, bins=1024)
    there = their_quantizer(dimension=D, n_q=4, bins=1024)
    for name in ("n_q", "dimension", "bins", "decay", "kmeans_init", "threshold_ema_dead_code"):
        assert getattr(here, name) == getattr(there, name)
    for bandwidth in (None, 0.0, 0.1, 1.5, 2.9):
        levels = there.get_num_quantizers_for_bandwidth(75, bandwidth)
        assert here.get_num_quantizers_for_bandwidth(75, bandwidth) == levels
    assert here.get_bandwidth_per_quantizer(75) == there.get_bandwidth_per_quantizer(75)
    layer, theirs_too = here.vq.layers[0], there.vq.layers[0]
    assert layer.codebook.shape == theirs_too.codebook.shape
    assert layer.codebook_size == theirs_too.codebook_size == 1024


def test_single_classes_are_converted_too() -> None:
    model = nn.Sequential(theirs.EuclideanCodebook(D, K), theirs.VectorQuantization(D, K))
    report = vq.convert(model)
    assert [entry.new for entry in report] == [
        f"vqkernels.compat.encodec.{name}" for name in CLASSES[:2]
    ]
    assert not bool(model[1]._codebook.inited)
    model[1](batch("VectorQuantization"))
    assert bool(model[1]._codebook.inited)
