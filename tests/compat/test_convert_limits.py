"""``convert`` and ``revert`` where a replacement would not do the same, or would leave a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compat import libraries
from compat.specimens import taming
from diffusers.models.autoencoders.vae import VectorQuantizer as Theirs
from torch import Tensor, nn

import vqkernels as vq

libraries.encodec()
from encodec.quantization import ResidualVectorQuantizer  # noqa: E402
from encodec.quantization.core_vq import VectorQuantization  # noqa: E402

K, D = 16, 4


class CopyWithCounter(taming.VectorQuantizer):
    def __init__(self) -> None:
        super().__init__(K, D, 0.25)
        self.steps = 0


class CopyWithSwappedLoss(taming.VectorQuantizer):
    """The value of the loss is the same, its gradients are not."""

    def forward(self, z: Tensor) -> Any:
        quantized, _, extras = super().forward(z)
        rows = self.embedding.weight[extras[2].reshape(len(z), *z.shape[2:])]
        q = rows.permute(0, 3, 1, 2)
        loss = self.beta * (q.detach() - z).square().mean() + (q - z.detach()).square().mean()
        return quantized, loss, extras


for copied in (CopyWithCounter, CopyWithSwappedLoss):
    copied.__name__ = "VectorQuantizer"


class Changed(VectorQuantization):
    pass


class Tripled(nn.Embedding):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 3


def _residual() -> Any:
    torch.manual_seed(0)
    return ResidualVectorQuantizer(D, n_q=2, bins=K, kmeans_init=False)


def _reason(module: nn.Module) -> str:
    (entry,) = vq.convert(nn.Sequential(module)).left
    assert entry.reason is not None
    assert "\n" not in entry.reason
    return entry.reason


@pytest.mark.parametrize("frozen", [False, True])
def test_a_trial_compares_gradients_wherever_convert_is_called(frozen: bool) -> None:
    module = CopyWithSwappedLoss(K, D, 0.25)
    module.embedding.weight.requires_grad_(not frozen)
    with torch.no_grad():
        assert "the gradient of" in _reason(module)
    with torch.inference_mode():
        assert "the gradient of" in _reason(module)


def test_a_copy_with_more_than_its_class_is_left() -> None:
    assert "it has steps, which that class has not" in _reason(CopyWithCounter())


def test_a_trial_calls_no_hook() -> None:
    module, calls = taming.VectorQuantizer(K, D, 0.25), []
    module.register_forward_hook(lambda *_: calls.append("forward"))
    assert vq.convert(nn.Sequential(module)).converted
    assert not calls


def test_a_part_of_another_class_is_left() -> None:
    subclassed, patched, embedding = _residual(), _residual(), Theirs(K, D, 0.25)
    subclassed.vq.layers[1] = Changed(D, K, kmeans_init=False)
    assert "vq.layers.1 is a" in _reason(subclassed)
    patched.vq.layers[1].forward = lambda x: x
    assert "the forward of its vq.layers.1 has been replaced" in _reason(patched)
    embedding.embedding = Tripled(K, D)
    assert "embedding is a" in _reason(embedding)


def test_what_torch_compile_holds_by_itself_is_left() -> None:
    assert "torch.compile holds it" in _reason(torch.compile(Theirs(K, D, 0.25), backend="eager"))


def test_a_model_named_like_a_quantizer_is_searched_for_copies() -> None:
    class VQTransformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.labels = nn.Embedding(3, D)
            self.quantize = taming.VectorQuantizer(K, D, 0.25)

    model = nn.Sequential(VQTransformer())
    assert [entry.path for entry in vq.convert(model).converted] == ["0.quantize"]
    assert not len(vq.convert(model))


@pytest.mark.parametrize("first", [True, False])
def test_a_part_that_the_model_holds_too_stays_that_part(first: bool) -> None:
    quantizer = _residual()
    quantizer.vq.layers[1] = quantizer.vq.layers[0]
    book = quantizer.vq.layers[0]._codebook
    model = nn.ModuleDict({"a": book, "b": quantizer} if first else {"b": quantizer, "a": book})
    for change, library in ((vq.convert, "vqkernels"), (vq.revert, "encodec")):
        assert not change(model).left
        layers = model["b"].vq.layers
        assert layers[1] is layers[0]
        assert layers[0]._codebook is model["a"]
        assert type(model["a"]).__module__.startswith(library)


def test_revert_gives_a_half_model_its_dtype_back() -> None:
    model = nn.Sequential(_residual()).half()
    before = {name: value.dtype for name, value in model.state_dict().items()}
    vq.convert(model)
    vq.revert(model)
    assert {name: value.dtype for name, value in model.state_dict().items()} == before


def test_revert_keeps_what_was_set_since() -> None:
    model: Any = nn.Sequential(Theirs(K, D, 0.25))
    vq.convert(model)
    model[0].beta, model[0].sane_index_shape = 0.5, True
    vq.revert(model)
    assert (model[0].beta, model[0].sane_index_shape) == (0.5, True)


def test_hooks_of_state_dict_are_kept() -> None:
    model, calls = nn.Sequential(Theirs(K, D, 0.25)), []
    model[0].register_state_dict_pre_hook(lambda *_: calls.append("before saving"))
    model[0].register_state_dict_post_hook(lambda *_: calls.append("saved"))
    model[0].register_load_state_dict_pre_hook(lambda *_: calls.append("before loading"))
    model[0].register_load_state_dict_post_hook(lambda *_: calls.append("loaded"))
    vq.convert(model)
    calls.clear()
    state = model.state_dict()
    assert calls == ["before saving", "saved"]
    model.load_state_dict(state)
    assert calls[-2:] == ["before loading", "loaded"]


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
def test_a_model_without_memory_raises_nothing() -> None:
    with torch.device("meta"):
        model = nn.Sequential(Theirs(K, D, 0.25), _residual())
    assert len(vq.convert(model)) == 2
