"""Stage 4: draw codes from the prior, class by class, and decode them.

    vqk sample runs/digits --sample.per_class 20

Reads RUN/tokenizer and RUN/prior-0, RUN/prior-1 and so on. Writes
RUN/samples/samples.safetensors (codes, labels, decoder means, pixels drawn from the decoder),
RUN/samples/samples.json (how they were made) and RUN/samples.png.
Nothing is selected: the sheet shows the first ones of each class.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor

from vqtrain import checkpoint, pictures
from vqtrain.config import RunConfig, parse
from vqtrain.data import load_dataset
from vqtrain.files import read_json, sha256, write_atomic, write_json
from vqtrain.priors.sampling import Sampler
from vqtrain.runtime import stage, start
from vqtrain.train_prior import load_priors
from vqtrain.train_tokenizer import load_tokenizer


@torch.no_grad()
def sample(config: RunConfig, run: Path) -> None:
    """Draws `per_class` samples of each class, ancestrally, top level first."""
    device = start(config).device
    with stage("sample", run) as note:
        class_names = load_dataset(config.data, config.seed).class_names
        tokenizer, header = load_tokenizer(config, run)
        tokenizer.to(device)
        priors = [
            prior.to(device)
            for prior in load_priors(config, run, header["fingerprint"], len(tokenizer.code_grids))
        ]
        labels = torch.arange(len(class_names), device=device)
        labels = labels.repeat_interleave(config.sample.per_class)
        generator = torch.Generator().manual_seed(config.seed)
        sampler = Sampler(
            temperature=config.sample.temperature,
            top_k=config.sample.top_k,
            top_p=config.sample.top_p,
            guidance=config.sample.guidance,
        )
        codes: tuple[Tensor, ...] = ()
        for prior in priors:
            codes = (*codes, prior.generate(labels, generator, sampler, codes))
        parameters = tokenizer.decode(codes, labels)
        means = tokenizer.likelihood.mean(parameters)
        uniforms = torch.rand(means.shape, generator=generator, dtype=torch.float64).to(device)
        drawn = tokenizer.likelihood.draw(parameters, uniforms)
        tensors = {
            **{f"codes_{level}": grid for level, grid in enumerate(codes)},
            "labels": labels,
            "means": means,
            "drawn": drawn.to(torch.uint8),
        }
        content = safetensors_save(
            {key: value.cpu().contiguous() for key, value in tensors.items()}
        )
        write_atomic(run / "samples" / "samples.safetensors", content)
        write_json(
            run / "samples" / "samples.json",
            {
                **asdict(config.sample),
                "seed": config.seed,
                "tokenizer": header["fingerprint"],
                "priors": [checkpoint.fingerprint(prior) for prior in priors],
                "sha256": sha256(content),
            },
        )
        shown = config.sample.shown_per_class
        by_class = (len(class_names), config.sample.per_class)
        pictures.sample_sheet(
            run / "samples.png",
            means.cpu().unflatten(0, by_class)[:, :shown],
            drawn.cpu().unflatten(0, by_class)[:, :shown],
            class_names=class_names,
            levels=tokenizer.signal.levels,
            temperature=config.sample.temperature,
        )
        note["result"] = f"{config.sample.per_class} samples of each of {len(class_names)} classes"


def load_samples(run: Path, priors: list[str]) -> dict[str, Tensor]:
    """Reads the samples of the priors with these fingerprints, as `sample` wrote them.

    Raises:
        FileNotFoundError: if nothing was sampled.
        ValueError: if the samples are of other priors or the file is damaged.
    """
    made_by = f"vqk sample {run}"
    facts = read_json(run / "samples" / "samples.json", made_by)
    content = (run / "samples" / "samples.safetensors").read_bytes()
    if facts["priors"] != priors or facts["sha256"] != sha256(content):
        raise ValueError(
            f"{run / 'samples'} must hold whole samples of the priors in this run, got "
            f"{len(content)} bytes of others or damaged ones: run `{made_by}` again"
        )
    tensors: dict[str, Tensor] = safetensors_load(content)
    return tensors


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    sample(*parse(sys.argv[1:] if argv is None else argv, "sample"))


if __name__ == "__main__":
    main()
