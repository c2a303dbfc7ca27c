"""What a run may say. Every field is documented here and nowhere else: `--help` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from vqtrain.codes import ExtractConfig
from vqtrain.data import DataConfig
from vqtrain.models import VAEConfig, VQVAE2Config, VQVAEConfig
from vqtrain.priors import GPTConfig, MaskedConfig, PixelCNNConfig, PixelSNAILConfig, Sampler


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a model is trained; the same for tokenizer and prior.

    Args:
        steps: optimiser steps.
        batch_size: items in a step, over all ranks.
        accumulate: forwards and backwards that a step's items are split over.
        clean_share: share of a step's items that are not warped; unset where a training set has
            no warped copies, and every epoch draws the items anew.
        learning_rate: peak of the schedule.
        schedule: what follows the warm-up: half a cosine down to 0, a straight line down to 0, or
            the peak for ever.
        warmup_steps: steps of linear warm-up.
        weight_decay: AdamW's decoupled decay.
        adam_betas: decays of AdamW's first and second moment.
        clip_norm: largest gradient norm.
        weight_ema: decay of the averaged weights that are validated and kept; 0 keeps the raw
            weights.
        validate_every: steps between validations; the best one is kept.
        patience: validations without improvement after which training stops; 0 never stops early.
    """

    steps: int = 1000
    batch_size: int = 128
    accumulate: int = 1
    clean_share: float | None = None
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = 50
    weight_decay: float = 0.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    weight_ema: float = 0.0
    validate_every: int = 50
    patience: int = 0

    def __post_init__(self) -> None:
        names = ("steps", "batch_size", "accumulate", "validate_every")
        _check_least(self, dict.fromkeys(names, 1))
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size must be a multiple of accumulate {self.accumulate}, "
                f"got {self.batch_size}"
            )
        if not 0 <= self.weight_ema < 1:
            raise ValueError(f"weight_ema must be in [0, 1), got {self.weight_ema}")
        if self.clean_share is not None and not 0 < self.clean_share <= 1:
            raise ValueError(f"clean_share must be in (0, 1], got {self.clean_share}")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(FitConfig):
    """The tokenizer: which model, its size and its training.

    Args:
        kind: which of the models below; `identity` takes the signal's own levels as codes and is
            not trained, `vae` has continuous latents and no prior.
        vqvae: one level of codes.
        vqvae2: several levels of codes.
        vae: the continuous counterpart.
    """

    kind: Literal["vqvae", "vqvae2", "vae", "identity"] = "vqvae"
    vqvae: VQVAEConfig = field(default_factory=VQVAEConfig)
    vqvae2: VQVAE2Config = field(default_factory=VQVAE2Config)
    vae: VAEConfig = field(default_factory=VAEConfig)


@dataclass(frozen=True, kw_only=True)
class PriorConfig(FitConfig):
    """A prior over codes: which model, its size and its training.

    Args:
        kind: which of the models below.
        pixelcnn: gated convolutions.
        pixelsnail: causal convolutions and attention.
        gpt: a transformer.
        masked: a transformer that fills masked codes in; no exact likelihood.
    """

    kind: Literal["pixelcnn", "pixelsnail", "gpt", "masked"] = "pixelcnn"
    pixelcnn: PixelCNNConfig = field(default_factory=PixelCNNConfig)
    pixelsnail: PixelSNAILConfig = field(default_factory=PixelSNAILConfig)
    gpt: GPTConfig = field(default_factory=GPTConfig)
    masked: MaskedConfig = field(default_factory=MaskedConfig)


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Samples drawn from prior and decoder.

    Args:
        per_class: samples of each class; all are kept and evaluated.
        shown_per_class: how many of them, the first ones, are on the sample sheet.
        batch_size: samples drawn at a time.
        temperature: divides the prior's logits; 1 samples the model that the ledger measures.
        top_k: keep the k likeliest codes at each position; 0 keeps all.
        top_p: keep the likeliest codes whose probabilities sum to at least p; 1 keeps all.
        guidance: weight of the class in classifier-free guidance; 1 is the conditional model.
        completions: held-out items whose second half is drawn anew.
    """

    per_class: int = 140
    shown_per_class: int = 12
    batch_size: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    completions: int = 8

    def __post_init__(self) -> None:
        # Two of a class are the least that the classifier of `vqk eval` can be trained on.
        least = {"per_class": 2, "shown_per_class": 1, "batch_size": 1, "completions": 0}
        _check_least(self, least, "sample.")
        # Here, and not after hours of training.
        Sampler(**{f.name: getattr(self, f.name) for f in fields(Sampler)})


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Measurements on held-out items.

    Args:
        batch_size: items measured at a time.
        bootstrap: resamplings behind an interval of the local distances.
        train_items: training items measured beside the held-out ones.
    """

    batch_size: int = 256
    bootstrap: int = 200
    train_items: int = 2000

    def __post_init__(self) -> None:
        # A training item is compared with another one.
        _check_least(self, {"batch_size": 1, "bootstrap": 1, "train_items": 2}, "eval.")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where training reports to, beside `log.jsonl`, which is always written.

    Args:
        tensorboard: also write TensorBoard events (extra `tensorboard`).
        wandb: also log to Weights & Biases (extra `wandb`); `WANDB_MODE=offline` is honoured.
    """

    tensorboard: bool = False
    wandb: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What a fit leaves on disk, beside the best weights.

    Args:
        every: steps between states that training can resume from; 0 takes `validate_every`.
        keep_every: steps between checkpoints that are kept, weights and state, in folders of
            their own; 0 keeps only the best weights and the last state.
        keep: how many of those folders stay, the newest ones; 0 keeps all.
    """

    every: int = 0
    keep_every: int = 0
    keep: int = 0

    def __post_init__(self) -> None:
        _check_least(self, dict.fromkeys(("every", "keep_every", "keep"), 0))


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run: data, tokenizer, priors and samples.

    Args:
        seed: decides everything random; each stage starts from it afresh.
        threads: CPU threads; 0 takes every core this process may use. Never inherited from the
            shell.
        device: auto takes a GPU when there is one.
        precision: of the matrix products in training; quantizers and likelihoods stay in float32.
        data: the signals.
        tokenizer: first model.
        extract: codes on disk.
        prior: second model, one for every level of codes.
        lower_prior: the priors of all levels below the top one; unset takes `prior`.
        sample: what is drawn.
        eval: what is measured.
        log: where training reports to.
        checkpoint: what training leaves on disk.
    """

    seed: int = 0
    threads: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["no", "bf16", "fp16"] = "no"
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    lower_prior: PriorConfig | None = None
    sample: SampleConfig = field(default_factory=SampleConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        if self.sample.guidance == 1 or self.tokenizer.kind == "vae":
            return
        for name in ("prior", "lower_prior"):  # here, and not after hours of training
            section = getattr(self, name)
            if section is not None and not getattr(section, section.kind).label_dropout:
                raise ValueError(
                    f"sample.guidance must be 1 unless {name}.{section.kind}.label_dropout is "
                    f"above 0, got {self.sample.guidance}"
                )

    def prior_of(self, level: int) -> PriorConfig:
        """The section that describes the prior of a level, 0 being the top."""
        return self.prior if level == 0 or self.lower_prior is None else self.lower_prior


def _check_least(section: Any, least: Mapping[str, int], where: str = "") -> None:
    """Refuses a section with a number that is too small; `where` goes before the field's name."""
    for name, bound in least.items():
        value = getattr(section, name)
        if value < bound:
            raise ValueError(f"{where}{name} must be at least {bound}, got {value}")
