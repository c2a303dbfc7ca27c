"""Stage 4: draw codes from the priors, class by class, decode them, and complete held-out items.

    vqk sample runs/digits --sample.per_class 20

Reads RUN/tokenizer and RUN/prior-0 (the top level), RUN/prior-1 and so on, whatever their kind; a
VAE has no priors and its latents are drawn. Writes RUN/samples/samples.safetensors,
RUN/samples/samples.json (how they were made), RUN/samples.png and RUN/completions.png. Nothing is
selected: the sheets show the first samples of each class and the first held-out items.

The tensors are `labels`, `codes_0` (the top level), `codes_1` and so on, `means` (of the decoder)
and, unless it was trained on a squared error, `drawn` (from the decoder); those of completions are
described in `vqtrain.completions`.
"""

import sys
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor

from vqtrain import checkpoint, pictures
from vqtrain.completions import complete_halves, completion_sheet
from vqtrain.config import RunConfig, parse
from vqtrain.data import Dataset, load_dataset
from vqtrain.files import read_json, sha256, write_atomic, write_json
from vqtrain.pipeline import GenerativePipeline, Samples, decoded
from vqtrain.priors.sampling import Sampler
from vqtrain.runtime import stage, start
from vqtrain.train_prior import load_priors
from vqtrain.train_tokenizer import load_tokenizer, load_vae


@torch.no_grad()
def sample(config: RunConfig, run: Path) -> None:
    """Draws `per_class` samples of each class, ancestrally, top level first."""
    device = start(config).device
    with stage("sample", run) as note:
        dataset = load_dataset(config.data, config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        sampler = Sampler(**{f.name: getattr(config.sample, f.name) for f in fields(Sampler)})
        labels = torch.arange(len(dataset.class_names), device=device)
        labels = labels.repeat_interleave(config.sample.per_class)
        batches = labels.split(config.sample.batch_size)
        priors: list[str] = []
        completions: dict[str, Tensor] = {}
        if config.tokenizer.kind == "vae":
            vae, header = load_vae(config, run)
            vae.to(device)
            parts = [
                decoded(vae.likelihood, vae.sample(batch, generator), (), generator)
                for batch in batches
            ]
        else:
            tokenizer, header = load_tokenizer(config, run)
            models = load_priors(config, run, header["fingerprint"], len(tokenizer.code_grids))
            priors = [checkpoint.fingerprint(prior) for prior in models]
            pipeline = GenerativePipeline(tokenizer, models, dataset.class_names).to(device)
            parts = [pipeline.sample(batch, generator, sampler) for batch in batches]
            held_out = min(config.sample.completions, len(dataset.test.rows))
            if held_out:
                items = dataset.test.take(torch.arange(held_out)).to(device)
                completions = complete_halves(pipeline, items, generator, sampler)
        tensors = {"labels": labels, **_joined(parts), **completions}
        tensors = {key: value.cpu().contiguous() for key, value in tensors.items()}
        content = safetensors_save(tensors)
        write_atomic(run / "samples" / "samples.safetensors", content)
        write_json(
            run / "samples" / "samples.json",
            {
                **asdict(config.sample),
                "seed": config.seed,
                "tokenizer": header["fingerprint"],
                "priors": priors,
                "sha256": sha256(content),
            },
        )
        _draw(config, run, dataset, tensors)
        note["result"] = (
            f"{config.sample.per_class} samples of each of {len(dataset.class_names)} classes"
        )


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


def _joined(parts: list[Samples]) -> dict[str, Tensor]:
    """Batches of samples as one tensor each."""
    tensors = {
        f"codes_{level}": torch.cat(codes)
        for level, codes in enumerate(zip(*(part.codes for part in parts), strict=True))
    }
    tensors["means"] = torch.cat([part.means for part in parts])
    drawn = [part.drawn for part in parts if part.drawn is not None]
    if drawn:
        tensors["drawn"] = torch.cat(drawn)
    return tensors


def _draw(config: RunConfig, run: Path, dataset: Dataset, tensors: dict[str, Tensor]) -> None:
    """The sheets of samples and completions."""
    by_class = (len(dataset.class_names), config.sample.per_class)
    shown = {
        key: tensors[key].unflatten(0, by_class)[:, : config.sample.shown_per_class]
        for key in ("means", "drawn")
        if key in tensors
    }
    pictures.sample_sheet(
        run / "samples.png",
        shown["means"],
        shown.get("drawn"),
        class_names=dataset.class_names,
        levels=dataset.signal.levels,
        temperature=config.sample.temperature,
    )
    if "held_out" in tensors:
        completion_sheet(run / "completions.png", tensors, dataset.signal)


def main(argv: list[str] | None = None) -> None:
    """Runs this stage from the command line."""
    sample(*parse(sys.argv[1:] if argv is None else argv, "sample"))


if __name__ == "__main__":
    main()
