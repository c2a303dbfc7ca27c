"""The masked prior: what it learns from, how it fills masks in, and what it refuses to say."""

import dataclasses
import itertools
import math

import pytest
import torch
from pipeline import priors_contract as contract
from pipeline.priors_contract import LABELS, SPACES, K
from torch import Tensor

from vqtrain.models.tokenizer import NoLikelihoodError
from vqtrain.priors import CodeSpace, MaskedConfig, MaskedPrior, Sampler

SPACE = SPACES["wide"]


def make(space: CodeSpace = SPACE, **fields: object) -> MaskedPrior:
    """A float64 model in eval mode whose logits differ visibly between positions and codes."""
    torch.manual_seed(0)
    config = MaskedConfig(width=16, layers=2, heads=2, dropout=0.5, label_dropout=0.1)
    prior = MaskedPrior(dataclasses.replace(config, **fields), space)
    torch.nn.init.normal_(prior.network.head.weight)
    return prior.double().eval()


class Recorder(MaskedPrior):
    """Keeps the tokens of every forward of the network."""

    def __init__(self, config: MaskedConfig, space: CodeSpace) -> None:
        super().__init__(config, space)
        self.seen: list[Tensor] = []
        self.network.register_forward_pre_hook(lambda _, args: self.seen.append(args[0].clone()))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
class TestEveryGrid:
    def test_a_code_moves_all_logits_and_a_masked_one_says_nothing(self, space: CodeSpace) -> None:
        prior = make(space)
        codes, labels, upper = contract.batch(space)
        with torch.no_grad():
            before = prior(codes, labels, upper).flatten(2)
            for t in range(space.positions):
                other = codes.flatten(1).clone()
                other[:, t] = (other[:, t] + 1) % K
                after = prior(other.view_as(codes), labels, upper).flatten(2)
                assert bool(((after != before).any(1)).all()), f"code {t}"

    def test_label_and_levels_above_move_every_logit(self, space: CodeSpace) -> None:
        contract.check_told(make(space))

    def test_samples_are_whole_and_decided_by_the_seed(self, space: CodeSpace) -> None:
        prior = make(space)
        _, labels, upper = contract.batch(space, 6)

        def draw(seed: int) -> Tensor:
            return prior.generate(labels, torch.Generator().manual_seed(seed), upper=upper)

        first = draw(1)
        assert first.shape == (6, *space.grid)
        assert first.min() >= 0
        assert first.max() < K
        torch.manual_seed(99)
        assert torch.equal(first, draw(1))
        assert not torch.equal(first, draw(2))


def test_passes_unmask_by_the_cosine_schedule_and_never_change_a_code() -> None:
    config = MaskedConfig(width=16, layers=1, heads=2, passes=5, choice_temperature=3.0)
    prior = Recorder(config, CodeSpace(K, (4, 5), LABELS)).eval()
    final = prior.generate(torch.zeros(3, dtype=torch.int64), torch.Generator().manual_seed(0))
    masked = [(tokens == K).sum(1).tolist() for tokens in prior.seen]
    expected = [20] + [int(20 * math.cos(math.pi / 2 * s / 5)) for s in range(1, 5)]
    assert masked == [[count] * 3 for count in expected]
    for tokens in prior.seen:
        assert torch.equal(tokens[tokens != K], final.flatten(1)[tokens != K])


@pytest.mark.parametrize("choice_temperature", [0.0, 3.0])
def test_a_pass_keeps_the_largest_confidences_with_gumbel_noise_that_falls(
    choice_temperature: float,
) -> None:
    config = MaskedConfig(
        width=16, layers=1, heads=2, passes=4, choice_temperature=choice_temperature
    )
    prior = Recorder(config, CodeSpace(K, (12,), LABELS)).double().eval()
    torch.nn.init.normal_(prior.network.head.weight)
    labels = torch.arange(32) % LABELS  # enough that another scale changes some order
    greedy = Sampler(top_k=1)
    prior.generate(labels, torch.Generator().manual_seed(0), greedy)
    uniforms = torch.rand(
        4, 2, 32, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    for i, (before, after) in enumerate(itertools.pairwise(prior.seen[:4])):
        with torch.no_grad():
            log_p = prior(before, labels).log_softmax(1).amax(1)
        noise = torch.distributions.Gumbel(0.0, 1.0).icdf(uniforms[i, 1])
        confidence = log_p + choice_temperature * (1 - (i + 1) / 4) * noise
        kept, left = (before == K) & (after != K), after == K
        for row in range(32):
            assert confidence[row][kept[row]].min() > confidence[row][left[row]].max()


def test_more_passes_than_positions_draw_one_code_at_a_time_and_stop() -> None:
    config = MaskedConfig(width=16, layers=1, heads=2, passes=50)
    prior = Recorder(config, CodeSpace(K, (2, 3), LABELS)).eval()
    prior.generate(torch.tensor([0]), torch.Generator().manual_seed(0))
    assert [(tokens == K).sum().item() for tokens in prior.seen] == [6, 5, 4, 3, 2, 1]


def test_one_pass_draws_every_code_from_its_own_uniform() -> None:
    prior = make(passes=1)
    _, labels, upper = contract.batch(SPACE)
    codes = prior.generate(labels, torch.Generator().manual_seed(3), upper=upper)
    uniforms = torch.rand(
        1, 2, 3, *SPACE.grid, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )[0, 0]
    with torch.no_grad():
        cdf = prior(torch.full_like(codes, K), labels, upper).softmax(1).cumsum(1)
    assert torch.equal(codes, (cdf <= uniforms[:, None]).sum(1))


def test_known_codes_are_kept_and_told_from_the_first_pass_on() -> None:
    prior = Recorder(MaskedConfig(width=16, layers=1, heads=2), SPACE).eval()
    codes, labels, upper = contract.batch(SPACE)
    mask = torch.arange(SPACE.positions).view(SPACE.grid) % 3 == 2

    def complete(mask: Tensor) -> Tensor:
        known = (codes, mask)
        return prior.generate(labels, torch.Generator().manual_seed(0), upper=upper, known=known)

    completed = complete(mask)
    assert torch.equal(completed[:, mask], codes[:, mask])
    assert not torch.equal(completed, codes)
    assert torch.equal(prior.seen[0].view_as(codes), codes.masked_fill(~mask, K))
    assert torch.equal(complete(torch.ones_like(mask)), codes)


def test_guidance_moves_samples_away_from_those_of_no_label() -> None:
    prior = make(passes=1)
    _, labels, upper = contract.batch(SPACE)
    sampler = Sampler(guidance=3.0, top_k=1)
    codes = prior.generate(labels, torch.Generator().manual_seed(0), sampler, upper)
    with torch.no_grad():
        told, null = (
            prior(torch.full_like(codes, K), y, upper)
            for y in (labels, torch.full_like(labels, LABELS))
        )
    assert torch.equal(codes, (null + 3 * (told - null)).argmax(1))


def test_sampling_never_waits_for_the_device() -> None:
    prior = make()
    _, labels, upper = contract.batch(SPACE)
    with contract.NoHostSync():
        prior.generate(
            labels, torch.Generator().manual_seed(0), Sampler(guidance=2.0, top_p=0.9), upper
        )


def masked_nats(prior: MaskedPrior, codes: Tensor, masked: Tensor, target: Tensor) -> Tensor:
    """Mean code length of the target at masked positions, by hand; label 0, no upper level."""
    logits = prior(codes.masked_fill(masked, K), torch.zeros(len(codes), dtype=torch.int64))
    return -logits.log_softmax(1).gather(1, target[:, None])[:, 0][masked].mean()


@torch.no_grad()
def test_loss_is_the_code_length_of_masked_codes_under_a_cosine_of_masks() -> None:
    prior = Recorder(MaskedConfig(width=16, layers=1, heads=2), CodeSpace(K, (4, 5), LABELS))
    codes = torch.randint(K, (4000, 4, 5), generator=torch.Generator().manual_seed(0))
    loss = prior.double().eval().loss(codes, torch.zeros(4000, dtype=torch.int64))
    masked = (prior.seen[0] == K).view_as(codes)
    torch.testing.assert_close(loss, masked_nats(prior, codes, masked, codes))
    share = masked.flatten(1).double().mean(1)
    assert share.min() > 0
    # E cos(pi u / 2) = 2 / pi, rounded up to a multiple of 1/20, which adds 1/40 on average; the
    # standard deviation of a share is 0.31, so four standard errors of 4000 of them are 0.02.
    assert share.mean().item() == pytest.approx(2 / math.pi + 1 / 40, abs=0.02)
    by_position = masked.double().mean(0)
    assert (by_position - share.mean()).abs().max() < 4 * 0.5 / 4000**0.5


@torch.no_grad()
def test_label_smoothing_mixes_the_target_with_all_codes() -> None:
    config = MaskedConfig(width=16, layers=1, heads=2, label_smoothing=0.2)
    prior = Recorder(config, CodeSpace(K, (4, 5), LABELS)).double().eval()
    codes = torch.randint(K, (3, 4, 5))
    loss = prior.loss(codes, torch.zeros(3, dtype=torch.int64))
    masked = (prior.seen[0] == K).view_as(codes)
    targets = [masked_nats(prior, codes, masked, (codes + shift) % K) for shift in range(K)]
    torch.testing.assert_close(loss, 0.8 * targets[0] + 0.2 * torch.stack(targets).mean())


def test_validation_loss_is_a_function_of_the_item_alone() -> None:
    prior = make()
    codes, labels, upper = contract.batch(SPACE, 5)
    whole = prior.validation_loss(codes, labels, upper)
    torch.manual_seed(7)
    again = prior.validation_loss(codes[2:4], labels[2:4], tuple(u[2:4] for u in upper))
    torch.testing.assert_close(again, whole[2:4])
    head = prior.network.head
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    torch.testing.assert_close(
        prior.validation_loss(codes, labels, upper), torch.full((5,), math.log(K)).double()
    )


def test_there_is_no_likelihood() -> None:
    prior = make()
    assert not prior.exact_likelihood
    with pytest.raises(NoLikelihoodError, match="MaskedPrior has no exact likelihood"):
        prior.nll(*contract.batch(SPACE))


def test_broken_contracts_are_named() -> None:
    for field, value in (("passes", 0), ("choice_temperature", -1.0), ("label_smoothing", 1.0)):
        with pytest.raises(ValueError, match=f"{field} must .* got {value}"):
            make(**{field: value})
    prior = make(label_dropout=0.0)
    _, labels, upper = contract.batch(SPACE)
    with pytest.raises(ValueError, match=r"guidance must be 1 .* got 2"):
        prior.generate(labels, torch.Generator(), Sampler(guidance=2.0), upper)
    with pytest.raises(RuntimeError, match="eval mode"):
        prior.train().generate(labels, torch.Generator(), upper=upper)
