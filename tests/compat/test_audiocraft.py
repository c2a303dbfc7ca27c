"""vqkernels.compat.audiocraft against a specimen that computes what audiocraft does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compat import agreement
from compat.specimens import audiocraft as theirs
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.compat import audiocraft as ours

K, D, N, LEVELS = 16, 6, 48, 3


def made(library: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    module = library.ResidualVectorQuantizer(
        dimension=D, n_q=LEVELS, bins=K, kmeans_init=False, decay=0.9, **options
    )
    for level in module.vq.layers:  # codes that have been in use: fresh ones have size 0
        level._codebook.cluster_size.fill_(3.0)
        level._codebook.embed_avg.copy_(level._codebook.embed * 3.0)
    return module


def pair(**options: Any) -> tuple[Any, Any]:
    here, there = made(ours, **options), made(theirs, **options)
    here.load_state_dict(there.state_dict(), strict=True)
    return here, there


def batch(seed: int = 1) -> Tensor:
    return torch.randn(2, D, N, generator=torch.Generator().manual_seed(seed))


def call(module: nn.Module, x: Tensor) -> list[Tensor]:
    torch.manual_seed(5)
    out = module(x, 50)
    return [out.x, out.penalty, out.codes, out.bandwidth]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"q_dropout": True},
        {"orthogonal_reg_weight": 2.0},
        {"orthogonal_reg_weight": 2.0, "orthogonal_reg_active_codes_only": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [True, False])
def test_a_call_gives_their_values_and_gradients(options: dict[str, Any], training: bool) -> None:
    here, there = (module.train(training) for module in pair(**options))
    if training:
        out, grad, _ = agreement.gradients(here, batch(), call)
        expected, expected_grad, _ = agreement.gradients(there, batch(), call)
        agreement.assert_in_one_band(grad, expected_grad)
    else:
        out, expected = call(here, batch()), call(there, batch())
    for one, other in zip(out, expected, strict=True):
        if other.is_floating_point():
            agreement.assert_in_one_band(one, other, terms=4.0)
        else:
            assert torch.equal(one, other)
    for name, value in there.state_dict().items():
        agreement.assert_in_one_band(here.state_dict()[name], value)


def test_fifty_steps_stay_in_step() -> None:
    here, there = pair()
    codes = there.vq.layers[0]._codebook.embed
    batches = [
        agreement.with_margin(codes, 2 * N, seed).reshape(2, N, D).transpose(1, 2)
        for seed in range(50)
    ]
    agreement.assert_steps_agree(here, there, batches, call, terms=2.0)


def test_orthogonality_of_at_most_so_many_codes_is_that_of_some_of_them() -> None:
    module = ours.VectorQuantization(
        D, K, orthogonal_reg_weight=1.0, orthogonal_reg_max_codes=2, commitment_weight=0.0
    )
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        _, _, loss = module(batch())
        assert loss.shape == (1,)
        unit = nn.functional.normalize(module.codebook, dim=1)
        of_pairs = (unit @ unit.T).square() / 2  # 2 cos^2 / 2^2
        assert (of_pairs - loss).abs().min() < 1e-6
        seen.add(round(loss.item(), 6))
    assert len(seen) > 5


def test_channels_may_come_last() -> None:
    options = {"dim": D, "codebook_size": K, "codebook_dim": 4}
    first, last = (ours.VectorQuantization(**options, channels_last=last) for last in (0, 1))
    last.load_state_dict(first.state_dict())
    x = batch()
    (q, indices, loss), (q_last, indices_last, loss_last) = first(x), last(x.transpose(1, 2))
    assert torch.equal(q, q_last.transpose(1, 2))
    assert torch.equal(indices, indices_last)
    assert torch.equal(loss, loss_last)


def test_the_number_of_levels_in_use_can_be_set() -> None:
    here, _ = pair()
    here.set_num_codebooks(2)
    assert (here.total_codebooks, here.num_codebooks) == (LEVELS, 2)
    codes = here.encode(batch())
    assert codes.shape == (2, 2, N)
    agreement.assert_in_one_band(here.decode(codes), here.eval()(batch(), 50).x)
    for n in (0, LEVELS + 1):
        with pytest.raises(ValueError, match=f"n must be in .*, got {n}"):
            here.set_num_codebooks(n)


def test_a_converted_quantizer_keeps_its_state_and_the_levels_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in (
        *(theirs.EuclideanCodebook, theirs.VectorQuantization),
        *(theirs.ResidualVectorQuantization, theirs.ResidualVectorQuantizer),
    ):
        where = "vq" if kind is theirs.ResidualVectorQuantizer else "core_vq"
        monkeypatch.setattr(kind, "__module__", f"audiocraft.quantization.{where}")
    _, there = pair()
    there.n_q = 2
    model = nn.ModuleDict({"quantizer": there, "level": made(theirs).vq.layers[0]})
    x = batch()
    before = there.eval()(x, 50)
    report = vq.convert(model)
    names = ["ResidualVectorQuantizer", "VectorQuantization"]
    assert [e.new for e in report] == [f"vqkernels.compat.audiocraft.{n}" for n in names]
    after = model["quantizer"](x, 50)
    assert torch.equal(after.codes, before.codes)
    agreement.assert_in_one_band(after.x, before.x)
    vq.revert(model)
    assert type(model["quantizer"]) is theirs.ResidualVectorQuantizer
    assert model["quantizer"].n_q == 2
    agreement.assert_in_one_band(model["quantizer"](x, 50).x, before.x)
