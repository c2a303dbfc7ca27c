"""vqkernels.compat.transformers: EncodecModel and MimiModel of transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from compat import agreement
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel, MimiConfig, MimiModel

import vqkernels as vq
from vqkernels.compat import transformers as ours

K, D, LEVELS = 32, 8, 4


def encodec() -> Any:
    return EncodecModel(
        EncodecConfig(
            target_bandwidths=[2.5, 5.0],
            sampling_rate=1000,
            hidden_size=D,
            num_filters=2,
            upsampling_ratios=[2, 2],
            num_lstm_layers=1,
            codebook_size=K,
            codebook_dim=D,
        )
    )


def mimi() -> Any:
    return MimiModel(
        MimiConfig(
            sampling_rate=1000,
            frame_rate=125.0,
            hidden_size=12,
            num_filters=2,
            upsampling_ratios=[2, 2],
            codebook_size=K,
            codebook_dim=D,
            vector_quantization_hidden_dimension=D,
            num_quantizers=LEVELS,
            num_semantic_quantizers=1,
            upsample_groups=12,
            num_hidden_layers=1,
            intermediate_size=16,
            num_attention_heads=2,
            num_key_value_heads=2,
            sliding_window=50,
        )
    )


MODELS: dict[str, Callable[[], Any]] = {"Encodec": encodec, "Mimi": mimi}
QUANTIZERS = {
    "Encodec": "EncodecResidualVectorQuantizer",
    "Mimi": "MimiSplitResidualVectorQuantizer",
}


def model_of(name: str) -> Any:
    """A model of theirs for inference, with codes of the size of what it encodes."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for module in model.modules():
            if hasattr(module, "cluster_usage"):
                module.embed_sum.normal_()
                module.cluster_usage.uniform_(0.0, 3.0)
                module.cluster_usage[3] = 0.0  # below epsilon
                module.embed_sum[3] *= 1e-5
                module._embed = None
            elif hasattr(module, "cluster_size"):
                module.embed.normal_()
    return model


def latents(model: Any, frames: int = 60) -> Tensor:
    torch.manual_seed(1)
    width = model.config.hidden_size
    return torch.randn(2, width, frames)


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_gives_their_outputs_and_reverts(name: str) -> None:
    model, original = model_of(name), model_of(name)
    report = vq.convert(model)
    found = [(entry.path, entry.new) for entry in report]
    assert found == [("quantizer", f"vqkernels.compat.transformers.{_where(name)}")]
    sound = torch.randn(2, 1, 400)
    with torch.no_grad():
        out, expected = model(sound), original(sound)
    assert torch.equal(out.audio_codes, expected.audio_codes)
    agreement.assert_in_one_band(out.audio_values, expected.audio_values)
    vq.revert(model)
    assert type(model.quantizer) is type(original.quantizer)
    with torch.no_grad():
        assert torch.equal(model(sound).audio_values, expected.audio_values)


def _where(name: str) -> str:
    return f"{name.lower()}.{QUANTIZERS[name]}"


@pytest.mark.parametrize("name", MODELS)
def test_buffers_stay_the_same_objects(name: str) -> None:
    model = model_of(name)
    before = {key: id(value) for key, value in model.named_buffers()}
    before |= {key: id(value) for key, value in model.named_parameters()}
    vq.convert(model)
    after = {key: id(value) for key, value in model.named_buffers()}
    after |= {key: id(value) for key, value in model.named_parameters()}
    assert after == before


@pytest.mark.parametrize("name", MODELS)
def test_a_converted_model_is_saved_as_theirs_and_loads_as_theirs(
    name: str, tmp_path: Path
) -> None:
    model = model_of(name)
    vq.convert(model)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert type(again.quantizer).__module__.startswith("transformers.")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    vq.convert(again)
    z = latents(model)
    assert torch.equal(again.quantizer.encode(z), model.quantizer.encode(z))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("frames", [60, 400])  # 400: all levels in one op
def test_every_level_takes_the_nearest_code(name: str, frames: int) -> None:
    model = model_of(name)
    original = copy.deepcopy(model.quantizer)
    vq.convert(model)
    z = latents(model, frames)
    codes = model.quantizer.encode(z)
    their_codes = original.encode(z)
    off, level = [], 0
    with torch.no_grad():
        for part in _residual_parts(model.quantizer):
            left = z if getattr(part, "input_proj", None) is None else part.input_proj(z)
            for layer in part.layers:
                rows = left.transpose(1, 2).reshape(-1, D)
                book = layer.codebook.embed
                off += agreement.assert_same_codes(codes[level], their_codes[level], rows, book)
                left = left - layer.decode(codes[level])
                level += 1
    assert level == len(codes)
    assert not off


def _residual_parts(quantizer: Any) -> list[Any]:
    if hasattr(quantizer, "layers"):
        return [quantizer]
    return [
        quantizer.semantic_residual_vector_quantizer,
        quantizer.acoustic_residual_vector_quantizer,
    ]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_searches_what_the_buffers_hold(name: str, dtype: torch.dtype) -> None:
    model = model_of(name).to(dtype)
    original = copy.deepcopy(model.quantizer)
    vq.convert(model)
    assert {b.dtype for b in model.quantizer.buffers()} == {dtype}
    z = latents(model).to(dtype)
    codes = model.quantizer.encode(z)
    part = _residual_parts(model.quantizer)[0]
    first = z if getattr(part, "input_proj", None) is None else part.input_proj(z)
    rows = first.detach().transpose(1, 2).reshape(-1, D)
    book = part.layers[0].codebook.embed
    agreement.assert_same_codes(codes[0], original.encode(z)[0], rows, book)
    if name == "Mimi":  # which searches in float32: the residuals are the same, so all codes are
        assert torch.equal(codes, original.encode(z))
    by_frame = codes if name == "Encodec" else codes.transpose(0, 1)
    out, expected = model.quantizer.decode(by_frame), original.decode(by_frame)
    assert out.dtype == expected.dtype == dtype
    assert torch.equal(out, expected)


def test_a_bandwidth_chooses_as_many_levels_as_theirs() -> None:
    model = model_of("Encodec")
    original = copy.deepcopy(model.quantizer)
    vq.convert(model)
    z = latents(model)
    for bandwidth in (None, 0.0, 0.5, 2.5, 5.0):
        levels = original.get_num_quantizers_for_bandwidth(bandwidth)
        assert model.quantizer.get_num_quantizers_for_bandwidth(bandwidth) == levels
        assert torch.equal(model.quantizer.encode(z, bandwidth), original.encode(z, bandwidth))
    for name in ("codebook_size", "frame_rate", "num_quantizers"):
        assert getattr(model.quantizer, name) == getattr(original, name)


def test_mimi_takes_the_semantic_levels_at_least() -> None:
    model = model_of("Mimi")
    original = copy.deepcopy(model.quantizer)
    vq.convert(model)
    z = latents(model)
    for levels in range(1, LEVELS + 1):
        codes = model.quantizer.encode(z, levels)
        assert torch.equal(codes, original.encode(z, levels))
        out = model.quantizer.decode(codes.transpose(0, 1))
        agreement.assert_in_one_band(out, original.decode(codes.transpose(0, 1)))
    for levels in (0, LEVELS + 1):
        with pytest.raises(ValueError, match=rf"num_quantizers must be in \[1, 4\], got {levels}"):
            model.quantizer.encode(z, levels)


def test_codes_of_mimi_follow_its_buffers() -> None:
    book = ours.MimiEuclideanCodebook(SimpleNamespace(codebook_size=K, codebook_dim=D))
    with torch.no_grad():
        book.embed_sum.normal_()
        kept = book.embed
        assert book.embed is kept
        book.cluster_usage[0] = 2.0
        assert torch.equal(book.embed[0], book.embed_sum[0] / 2.0)
        state = {**book.state_dict(), "embed_sum": torch.ones(K, D)}
        book.load_state_dict(state)
    assert torch.equal(book.embed[1:], torch.ones(K - 1, D))
    assert book.half().embed.dtype == torch.float16
    assert torch.equal(copy.deepcopy(book).embed, book.embed)


@pytest.mark.parametrize("name", MODELS)
def test_quantizers_compile_in_one_graph(name: str) -> None:
    model = model_of(name)
    vq.convert(model)
    z = latents(model)
    encode = torch.compile(model.quantizer.encode, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(encode(z), model.quantizer.encode(z))


@pytest.mark.parametrize("name", MODELS)
def test_bad_codes_and_checkpoints_are_refused(name: str) -> None:
    model = model_of(name)
    vq.convert(model)
    codes = torch.full((1, 1, 5), K)
    with pytest.raises(ValueError, match="indices must"):
        model.quantizer.decode(codes)
    state = model.quantizer.state_dict()
    key = next(key for key in state if key.endswith(("codebook.embed", "codebook.embed_sum")))
    state[key] = torch.zeros(K - 1, D)
    with pytest.raises(vq.compat.CheckpointError) as error:
        model.quantizer.load_state_dict(state)
    assert error.value.code == "wrong_num_embeddings"


def test_parts_of_a_quantizer_are_converted_too() -> None:
    parts = [_residual_parts(model_of(name).quantizer)[0].layers[0] for name in MODELS]
    model = nn.Sequential(*parts, *(part.codebook for part in copy.deepcopy(parts)))
    before = [
        (part.encode(torch.ones(1, D, 3)) if n < 2 else part.encode(torch.ones(3, D)))
        for n, part in enumerate(model)
    ]
    assert len(vq.convert(model).converted) == 4
    for n, part in enumerate(model):
        x = torch.ones(1, D, 3) if n < 2 else torch.ones(3, D)
        assert torch.equal(part.encode(x), before[n])
