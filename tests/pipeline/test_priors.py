"""The contract of all autoregressive priors, on grids of one to three axes."""

from collections.abc import Callable

import pytest
import torch
from pipeline import priors_contract as contract
from pipeline.priors_contract import SAMPLERS, SPACES
from torch import Tensor, nn

from vqtrain.priors import (
    PRIORS,
    CodeGPT,
    CodeSpace,
    GatedPixelCNN,
    GPTConfig,
    PixelCNNConfig,
    PixelSNAIL,
    PixelSNAILConfig,
    Prior,
    Sampler,
)


def pixelcnn(space: CodeSpace) -> Prior:
    layers = max(space.grid)  # the receptive field covers the grid: reach 2, one more per layer
    config = PixelCNNConfig(width=8, layers=layers, dropout=0.5, label_dropout=0.1)
    return GatedPixelCNN(config, space)


def pixelsnail(space: CodeSpace) -> Prior:
    sizes = {"width": 8, "residual_width": 8, "heads": 2, "layers": 2, "attention_every": 1}
    return PixelSNAIL(PixelSNAILConfig(**sizes, dropout=0.5, label_dropout=0.1), space)


def gpt(space: CodeSpace) -> Prior:
    sizes = {"width": 16, "layers": 2, "heads": 2}
    return CodeGPT(GPTConfig(**sizes, dropout=0.5, label_dropout=0.1), space)


def gpt_rope(space: CodeSpace) -> Prior:
    sizes = {"width": 16, "layers": 2, "heads": 2}
    return CodeGPT(GPTConfig(**sizes, positions="rope", label_dropout=0.1), space)


@pytest.fixture(params=[pixelcnn, pixelsnail, gpt, gpt_rope], ids=lambda maker: maker.__name__)
def make(request: pytest.FixtureRequest) -> Callable[[CodeSpace], Prior]:
    """A float64 model in eval mode, none of whose parameters is zero or one."""

    def model(space: CodeSpace) -> Prior:
        torch.manual_seed(0)
        prior: Prior = request.param(space)
        for parameter in prior.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter, std=0.5)
        return prior.double().eval()

    return model


Make = Callable[[CodeSpace], Prior]


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
class TestContract:
    def test_a_code_moves_every_later_logit_and_no_other(
        self, make: Make, space: CodeSpace
    ) -> None:
        contract.check_order(make(space))

    def test_label_and_levels_above_move_every_logit(self, make: Make, space: CodeSpace) -> None:
        contract.check_told(make(space))

    @pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
    def test_cached_codes_are_the_naive_ones(
        self, make: Make, space: CodeSpace, sampler: Sampler
    ) -> None:
        contract.check_cached_equals_naive(make(space), sampler)

    def test_steps_equal_the_forward(self, make: Make, space: CodeSpace) -> None:
        contract.check_steps_equal_forward(make(space))

    def test_sampling_never_waits_for_the_device(self, make: Make, space: CodeSpace) -> None:
        contract.check_no_host_sync(make(space))


@pytest.mark.parametrize(
    "space",
    [CodeSpace(3, (4,), 2), CodeSpace(3, (2, 2), 2, ((4, (1, 1)),)), CodeSpace(3, (2, 1, 2), 2)],
    ids=["line", "picture", "video"],
)
def test_probabilities_of_all_grids_sum_to_one(make: Make, space: CodeSpace) -> None:
    contract.check_likelihood(make(space))


def test_validation_loss_is_nats_per_code(make: Make) -> None:
    prior = make(SPACES["wide"])
    codes, labels, upper = contract.batch(prior.space)
    expected = prior.nll(codes, labels, upper) / 12
    torch.testing.assert_close(prior.validation_loss(codes, labels, upper), expected)


@pytest.mark.parametrize("kind", PRIORS)
def test_a_description_rebuilds_the_model(kind: str) -> None:
    space = SPACES["wide"]
    prior = PRIORS[kind](PRIORS[kind].config_type(), space).eval()
    twin = PRIORS[kind].from_description(prior.description()).eval()
    twin.load_state_dict(prior.state_dict())
    inputs = contract.batch(space)
    assert torch.equal(prior(*inputs), twin(*inputs))


@pytest.mark.parametrize("kind", PRIORS)
def test_training_lowers_the_loss_on_a_rule(kind: str) -> None:
    """Codes that repeat the label: a prior that learns at all learns this in a few steps."""
    torch.manual_seed(0)
    space = CodeSpace(4, (3, 3), 4)
    prior = PRIORS[kind](PRIORS[kind].config_type(), space)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-3)
    labels = torch.arange(4).repeat(8)
    codes = labels[:, None, None].expand(-1, 3, 3).clone()

    def validation() -> Tensor:
        with torch.no_grad():
            return prior.eval().validation_loss(codes, labels).mean()

    before = validation()
    for _ in range(40):
        optimizer.zero_grad()
        prior.train().loss(codes, labels).backward()
        optimizer.step()
    assert validation() < 0.2 * before
    drawn = prior.generate(labels, torch.Generator().manual_seed(0))
    assert (drawn == codes).double().mean() > 0.9
