"""``convert`` and ``revert``: what they replace, keep, leave and say."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import VQModel
from diffusers.models.autoencoders.vae import VectorQuantizer as Theirs
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat.diffusers import VectorQuantizer as Ours

K, D = 32, 4
_LIBRARY = "diffusers.models.autoencoders.vae.VectorQuantizer"
_PEER = "vqkernels.compat.diffusers.VectorQuantizer"


class Subclass(Theirs):
    pass


class StrangeQuantizer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(K, D)

    def forward(self, z: Tensor) -> Tensor:
        return z


class Model(nn.Module):
    """Two uses of one quantizer, one in evaluation, and what is no quantizer."""

    def __init__(self, quantizer: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, D, 3)
        self.quantize = quantizer or Theirs(K, D, beta=0.25)
        self.stages = nn.ModuleList([nn.Sequential(Theirs(K, D, beta=0.5, legacy=False))])
        self.again = self.quantize

    def forward(self, x: Tensor) -> Tensor:
        z, loss, _ = self.quantize(self.encoder(x))
        z, more, _ = self.stages[0](z)
        return z.square().mean() + loss + more


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 8, 8)


def test_every_place_of_a_known_class_is_replaced(model: Model) -> None:
    report = vq.convert(model)
    assert [(entry.path, entry.old, entry.new) for entry in report] == [
        ("quantize", _LIBRARY, _PEER),
        ("stages.0.0", _LIBRARY, _PEER),
    ]
    assert isinstance(model.quantize, Ours)
    assert model.again is model.quantize
    assert isinstance(model.stages[0][0], Ours)
    assert not model.stages[0][0].legacy
    assert str(report).splitlines()[0] == f"quantize: {_LIBRARY}, now {_PEER}"


def test_a_dry_run_reports_the_same_and_changes_nothing(model: Model) -> None:
    before = dict(model.named_modules())
    report = vq.convert(model, dry_run=True)
    assert dict(model.named_modules()) == before
    assert report == vq.convert(model)


def test_an_optimizer_made_before_goes_on(model: Model, x: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    weight = model.quantize.embedding.weight
    vq.convert(model)
    assert model.quantize.embedding.weight is weight
    before = weight.detach().clone()
    model(x).backward()
    optimizer.step()
    assert not torch.equal(model.quantize.embedding.weight, before)


def test_hooks_mode_and_flags_are_kept(model: Model, x: Tensor) -> None:
    calls: list[str] = []
    handle = model.quantize.register_forward_hook(lambda *_: calls.append("forward"))
    model.quantize.register_forward_pre_hook(lambda *_: calls.append("before"))
    model.quantize.register_full_backward_hook(lambda *_: calls.append("backward"))
    model.quantize.embedding.weight.requires_grad_(False)
    model.train()
    model.quantize.eval()
    vq.convert(model)
    assert not model.quantize.training
    assert model.stages[0][0].training
    assert not model.quantize.embedding.weight.requires_grad
    model(x).backward()
    assert calls == ["before", "forward", "backward"]
    handle.remove()
    model(x)
    assert calls[3:] == ["before"]


def test_generators_are_where_they_were(model: Model) -> None:
    before = torch.get_rng_state()
    vq.convert(model)
    vq.revert(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_revert_gives_back_the_class_with_the_weights_of_now(model: Model, x: Tensor) -> None:
    vq.convert(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(x).backward()
    optimizer.step()
    expected, weight = model(x), model.quantize.embedding.weight
    report = vq.revert(model)
    assert [(entry.path, entry.new) for entry in report] == [
        ("quantize", _LIBRARY),
        ("stages.0.0", _LIBRARY),
    ]
    assert type(model.quantize) is Theirs
    assert model.quantize.embedding.weight is weight
    assert type(model.stages[0][0]) is Theirs
    assert not model.stages[0][0].legacy
    torch.testing.assert_close(model(x), expected)


def test_a_converted_model_pickles_copies_and_still_reverts(model: Model) -> None:
    vq.convert(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (torch.load(file, weights_only=False), copy.deepcopy(model)):
        assert vq.revert(other).converted
        assert type(other.quantize) is Theirs


def test_a_converted_model_loads_without_its_library(model: Model, tmp_path: Path) -> None:
    vq.convert(model)
    torch.save(model.quantize, tmp_path / "quantizer.pt")
    code = (
        "import sys; sys.modules['diffusers'] = None; import torch\n"
        "q = torch.load(sys.argv[1], weights_only=False)\n"
        "print(q(torch.randn(1, 4, 2, 2))[2][2].shape)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "quantizer.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "torch.Size([4])\n", done.stderr


def test_nothing_to_replace_is_no_error() -> None:
    report = vq.convert(nn.Sequential(nn.Linear(2, 2)))
    assert not len(report)
    assert str(report) == "no quantizer found"


def test_a_module_of_ours_is_no_business_of_convert() -> None:
    assert not len(vq.convert(nn.Sequential(vq.nn.VectorQuantizer(8, 2))))


def _left(model: nn.Module) -> str:
    report = vq.convert(model)
    assert not report.converted
    (entry,) = report.left
    assert entry.reason is not None
    return entry.reason


def test_the_model_itself_is_left() -> None:
    assert "it is the model itself" in _left(Theirs(K, D, beta=0.25))


def test_a_subclass_is_left() -> None:
    assert _left(nn.Sequential(Subclass(K, D, beta=0.25))) == (
        f"a subclass of {_LIBRARY} may do something else"
    )


def test_what_looks_like_a_quantizer_is_reported() -> None:
    assert "its class is not known" in _left(nn.Sequential(StrangeQuantizer()))


def test_a_changed_forward_is_left() -> None:
    quantizer = Theirs(K, D, beta=0.25)
    quantizer.forward = lambda z: z
    assert "its forward has been replaced" in _left(nn.Sequential(quantizer))


def test_a_changed_state_is_left() -> None:
    more = Theirs(K, D, beta=0.25)
    more.register_buffer("count", torch.zeros(3))
    assert "its state_dict differs from that of its class in count" in _left(nn.Sequential(more))
    other = Theirs(K, D, beta=0.25)
    other.embedding = nn.Embedding(K, D + 1)
    assert "embedding.weight has shape (32, 5), where its class has (32, 4)" in _left(
        nn.Sequential(other)
    )


def test_a_lost_attribute_is_left() -> None:
    quantizer = Theirs(K, D, beta=0.25)
    del quantizer.beta
    assert "it lacks an attribute of its class" in _left(nn.Sequential(quantizer))


def test_what_was_made_as_ours_does_not_revert() -> None:
    model = nn.Sequential(Ours(K, D, beta=0.25))
    (entry,) = vq.revert(model).left
    assert entry.reason == "it was made as this class and has no other"
    assert isinstance(model[0], Ours)


def test_revert_says_that_the_library_is_missing(model: Model) -> None:
    vq.convert(model)
    origin = model.quantize._origin
    assert origin is not None
    gone = type(origin)("no_such_library.vae.VectorQuantizer", origin.arguments)
    model.quantize._origin = gone
    entry = vq.revert(model).left[0]
    assert entry.reason == (
        "its library is needed: the library of no_such_library.vae.VectorQuantizer must be "
        "installed to make one, got none"
    )


@pytest.mark.parametrize("call", [vq.convert, vq.revert])
def test_bad_arguments_are_refused(call: Any) -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got list"):
        call([])
    with pytest.raises(TypeError, match="dry_run must be a bool, got 1"):
        call(nn.Linear(1, 1), dry_run=1)


def test_a_real_model_evaluates_the_same_and_trains(x: Tensor) -> None:
    torch.manual_seed(0)
    model = VQModel(block_out_channels=(32,), norm_num_groups=8, num_vq_embeddings=64).eval()
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        before = model(x).sample
        assert vq.convert(model).converted
        after = model(x).sample
        torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
        vq.revert(model)
        assert torch.equal(model(x).sample, before)
