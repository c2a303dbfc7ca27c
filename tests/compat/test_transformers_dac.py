"""vqkernels.compat.transformers: DacModel of transformers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from compat import agreement
from torch import Tensor, nn
from transformers import DacConfig, DacModel
from transformers.models.dac import modeling_dac as theirs

import vqkernels as vq
from vqkernels.compat import transformers as ours

C, K, D, LEVELS, B, N = 16, 32, 4, 3, 4, 40


def config(**options: Any) -> DacConfig:
    given = {
        "encoder_hidden_size": 4,
        "downsampling_ratios": [2, 2],
        "decoder_hidden_size": 16,
        "n_codebooks": LEVELS,
        "codebook_size": K,
        "codebook_dim": D,
        "sampling_rate": 1000,
        **options,
    }
    return DacConfig(**given)


def model_of(**options: Any) -> Any:
    torch.manual_seed(0)
    model = DacModel(config(**options)).eval()
    for module in model.quantizer.modules():  # drawn with 0.02, which no trained model has
        if isinstance(module, (nn.Embedding, nn.Conv1d)):
            nn.init.normal_(module.weight, std=0.3)
    return model


def pair(**options: Any) -> tuple[Any, Any]:
    there = model_of(**options).quantizer
    here = ours.DacResidualVectorQuantizer(config(**options))
    here.load_state_dict(there.state_dict(), strict=True)
    there.load_state_dict(here.state_dict(), strict=True)
    return here, there


def batch(seed: int = 1) -> Tensor:
    return torch.randn(B, C, N, generator=torch.Generator().manual_seed(seed))


def call(module: nn.Module, x: Tensor) -> Any:
    torch.manual_seed(5)  # quantizer dropout draws
    return module(x)


def loss_and_codes(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    z_q, codes, _, commitment, codebook = call(module, x)
    return (z_q - x).square().mean() + (0.25 * commitment + codebook).mean(), codes


def assert_alike(out: Any, expected: Any) -> None:
    for one, other in zip(out, expected, strict=True):
        if other.is_floating_point():
            agreement.assert_in_one_band(one, other, terms=4.0)
        else:
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    "options", [{}, {"quantizer_dropout": 0.5}, {"quantizer_dropout": 1.0}], ids=str
)
@pytest.mark.parametrize("training", [True, False])
def test_a_call_gives_their_values_and_gradients(options: dict[str, Any], training: bool) -> None:
    here, there = (module.train(training) for module in pair(**options))
    out, grad, weights = agreement.gradients(here, batch(), call)
    expected, expected_grad, expected_weights = agreement.gradients(there, batch(), call)
    assert_alike(out, expected)
    agreement.assert_in_one_band(grad, expected_grad)
    assert weights.keys() == expected_weights.keys()
    for name, weight in expected_weights.items():
        agreement.assert_in_one_band(weights[name], weight, terms=50.0)


def test_dropout_leaves_the_generator_where_theirs_does() -> None:
    for module in pair(quantizer_dropout=0.5):
        call(module.train(), batch())
        after = torch.get_rng_state()
        torch.manual_seed(5)
        torch.randint(1, LEVELS + 1, (B,))
        assert torch.equal(torch.get_rng_state(), after)


def test_codes_are_the_nearest_in_angle() -> None:
    here, there = (module.eval() for module in pair())
    _, codes, latents, _, _ = here(batch())
    _, their_codes, _, _, _ = there(batch())
    for level, quantizer in enumerate(here.quantizers):
        rows = latents[:, level * D : (level + 1) * D].transpose(1, 2).reshape(-1, D)
        weight = quantizer.codebook.weight
        args = codes[:, level], their_codes[:, level], rows, weight
        assert not agreement.assert_same_codes(*args, metric="cosine")


def test_fifty_steps_stay_in_step() -> None:
    here, there = pair(quantizer_dropout=0.5)
    batches = [batch(seed) for seed in range(50)]
    agreement.assert_steps_agree(here, there, batches, loss_and_codes, terms=1.0)


@pytest.mark.parametrize("levels", [1, 2, None])
def test_evaluation_takes_as_many_levels_as_asked(levels: int | None) -> None:
    here, there = (module.eval() for module in pair())
    out = here(batch(), levels)
    assert out[1].shape == (B, levels or LEVELS, N)
    assert_alike(out, there(batch(), levels))


def test_codes_and_latents_go_back_as_theirs() -> None:
    here, there = (module.eval() for module in pair())
    _, codes, latents, _, _ = there(batch())
    assert_alike(here.from_codes(codes[:, :2]), there.from_codes(codes[:, :2]))
    assert_alike(here.from_latents(latents), there.from_latents(latents))
    assert_alike(here.from_latents(latents[:, : D + 1]), there.from_latents(latents[:, : D + 1]))


def test_a_converted_model_gives_their_outputs_trains_and_reverts() -> None:
    model, original = model_of(), model_of()
    report = vq.convert(model)
    place = "vqkernels.compat.transformers.dac.DacResidualVectorQuantizer"
    assert [(entry.path, entry.new) for entry in report] == [("quantizer", place)]
    sound = torch.randn(2, 1, 200)
    with torch.no_grad():
        out, expected = model(sound), original(sound)
    assert torch.equal(out.audio_codes, expected.audio_codes)
    agreement.assert_in_one_band(out.audio_values, expected.audio_values)
    for module in (model.train(), original.train()):
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
        for _ in range(3):
            torch.manual_seed(5)
            step = module(sound)
            optimizer.zero_grad()
            (step.audio_values.square().mean() + step.loss.mean()).backward()
            optimizer.step()
    for name, value in original.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, rtol=1e-4, atol=1e-5), name
    vq.revert(model)
    assert type(model.quantizer) is theirs.DacResidualVectorQuantizer
    with torch.no_grad():
        again = model.eval()(sound).audio_values
        assert torch.allclose(again, original.eval()(sound).audio_values, rtol=1e-3, atol=1e-4)


def test_weight_norm_and_saving_work_on_a_converted_model(tmp_path: Path) -> None:
    model = model_of()
    vq.convert(model)
    model.save_pretrained(tmp_path)
    again = DacModel.from_pretrained(tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    model.apply_weight_norm()
    again.apply_weight_norm()
    assert model.state_dict().keys() == again.state_dict().keys()


def test_half_precision_gives_half_precision() -> None:
    here, there = (module.eval().bfloat16() for module in pair())
    with torch.no_grad():
        out, expected = (module(batch().bfloat16()) for module in (here, there))
    for one, other in zip(out, expected, strict=True):
        assert one.dtype == other.dtype
    weight = here.quantizers[0].codebook.weight
    rows = out[2][:, :D].transpose(1, 2).reshape(-1, D)
    agreement.assert_same_codes(out[1][:, 0], expected[1][:, 0], rows, weight, metric="cosine")


def test_a_step_compiles_in_one_graph() -> None:
    here, _ = pair()
    compiled = torch.compile(here, fullgraph=True, backend="aot_eager")
    for one, other in zip(compiled(batch()), here(batch()), strict=True):
        assert torch.equal(one, other)


def test_bad_input_and_checkpoints_are_refused() -> None:
    here, _ = pair()
    with pytest.raises(ValueError, match="x must have"):
        here.quantizers[0].decode_latents(torch.zeros(B, D + 1, N))
    with pytest.raises(ValueError, match="indices must"):
        here.from_codes(torch.full((B, 1, N), K))
    with pytest.raises(vq.compat.CheckpointError) as error:
        here.load_state_dict({f"module.{k}": v for k, v in here.state_dict().items()})
    assert error.value.code == "module_prefix"


def test_a_single_level_is_converted_too() -> None:
    level = copy.deepcopy(model_of().quantizer.quantizers[0])
    model = nn.Sequential(level)
    before = level(batch())
    vq.convert(model)
    assert type(model[0]) is ours.DacVectorQuantize
    assert_alike(model[0](batch()), before)
