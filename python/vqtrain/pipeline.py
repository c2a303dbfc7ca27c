"""A tokenizer and the priors of its codes as one generative model.

    from vqtrain.pipeline import GenerativePipeline
    pipeline = GenerativePipeline.from_pretrained("runs/digits")
    labels = torch.arange(10)
    pipeline.sample(labels, torch.Generator().manual_seed(0)).means     # (10, 1, 8, 8)

On disk it is `pipeline.json` beside the folders `tokenizer`, `prior-0` (the top level), `prior-1`
and so on: a run folder without what only training needs (`vqk export RUN --to DIR`).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtrain import checkpoint
from vqtrain.files import read_json, write_json
from vqtrain.models.likelihood import Likelihood
from vqtrain.models.tokenizer import Codes, Tokenizer
from vqtrain.pretrained import local
from vqtrain.priors.prior import CodeSpace, Prior
from vqtrain.priors.sampling import Sampler

SCHEMA = 1
MAX_POOL = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}


class Samples(NamedTuple):
    """What was drawn.

    Attributes:
        codes: `(B, *grid)` int64 of each level, top first.
        means: `(B, C, *size)` float32, expected levels given the codes.
        drawn: `(B, C, *size)` uint8, levels drawn from the decoder's likelihood; None where it
            has only a squared error.
    """

    codes: Codes
    means: Tensor
    drawn: Tensor | None


class Bits(NamedTuple):
    """A code length, bits per dimension of each item: send the codes, then x given the codes.

    Attributes:
        total: `(B,)`, the sum of the others and an upper bound on -log2 p(x | y) / dims.
        reconstruction: `(B,)`, -log2 p(x | z, y) / dims.
        codes: `(B,)` for each level, -log2 p(z_l | z_<l, y) / dims.
    """

    total: Tensor
    reconstruction: Tensor
    codes: tuple[Tensor, ...]


class GenerativePipeline(nn.Module):
    """p(x | y) = p(x | z, y) prod over levels l of p(z_l | z_<l, y).

    Args:
        tokenizer: trained.
        priors: one for each level of codes, top level first.
        class_names: names of the labels that can be asked for.

    Raises:
        ValueError: if a prior is of another tokenizer or models other codes, or one is missing.
    """

    priors: Sequence[Prior]

    def __init__(
        self, tokenizer: Tokenizer, priors: Sequence[Prior], class_names: Sequence[str]
    ) -> None:
        super().__init__()
        _check(tokenizer, priors)
        self.tokenizer = tokenizer
        self.priors = nn.ModuleList(priors)  # type: ignore[assignment]
        self.class_names = tuple(class_names)
        self.eval()

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        generator: torch.Generator,
        sampler: Sampler = Sampler(),  # noqa: B008 (frozen)
    ) -> Samples:
        """Draws codes ancestrally, top level first, and decodes them.

        Args:
            labels: `(B,)` int64, on the pipeline's device.
            generator: CPU generator; it decides everything.
            sampler: temperature, top-k, top-p and guidance of every level.
        """
        codes: Codes = ()
        for prior in self.priors:
            codes = (*codes, prior.generate(labels, generator, sampler, codes))
        return self._decode(codes, labels, generator)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, labels: Tensor) -> Tensor:
        """`(B, C, *size)` float32 expected levels given the codes of x.

        Args:
            x: `(B, C, *size)` uint8 levels.
            labels: `(B,)` int64.
        """
        parameters = self.tokenizer.decode(self.tokenizer.encode(x), labels)
        return self.tokenizer.likelihood.mean(parameters)

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        labels: Tensor,
        mask: Tensor,
        generator: torch.Generator,
        sampler: Sampler = Sampler(),  # noqa: B008 (frozen)
    ) -> Samples:
        """Keeps the codes of what is known of x and draws the others after them.

        A code is kept if the whole cell of x that it stands for is known. Codes at the border
        were encoded with a glance at what lies beyond it, so blank out what must not be seen.

        Args:
            x: `(B, C, *size)` uint8 levels.
            labels: `(B,)` int64.
            mask: `(*size)` bool, true where x is known.
            generator: CPU generator.
            sampler: as in `sample`.
        """
        if tuple(mask.shape) != self.tokenizer.signal.size:
            raise ValueError(
                f"mask must have shape {self.tokenizer.signal.size}, got {tuple(mask.shape)}"
            )
        codes: Codes = ()
        for prior, given in zip(self.priors, self.tokenizer.encode(x), strict=True):
            known = (given, _cells(mask, prior.space.grid))
            codes = (*codes, prior.generate(labels, generator, sampler, codes, known))
        return self._decode(codes, labels, generator)

    @torch.no_grad()
    def bits_per_dim(self, x: Tensor, labels: Tensor) -> Bits:
        """The bits that x takes; see `Bits`.

        Args:
            x: `(B, C, *size)` uint8 levels.
            labels: `(B,)` int64.

        Raises:
            NoLikelihoodError: if the decoder or a prior defines no probability.
        """
        per_dim = 1 / (math.log(2) * self.tokenizer.signal.dims)
        codes = self.tokenizer.encode(x)
        reconstruction = self.tokenizer.nll(x, labels, codes) * per_dim
        levels = tuple(
            prior.nll(codes[level], labels, codes[:level]) * per_dim
            for level, prior in enumerate(self.priors)
        )
        return Bits(sum(levels, reconstruction), reconstruction, levels)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes tokenizer and priors, then `pipeline.json`, which ties them together."""
        folder, parts = Path(folder), _parts(self.tokenizer, self.priors)
        self.tokenizer.save_pretrained(folder / "tokenizer")
        for level, prior in enumerate(self.priors):
            prior.facts = {**prior.facts, "tokenizer": parts["tokenizer"]}
            prior.save_pretrained(folder / f"prior-{level}")
        content = {"schema": SCHEMA, "class_names": list(self.class_names), **parts}
        write_json(folder / "pipeline.json", content)

    @classmethod
    def from_pretrained(cls, source: str | Path) -> "GenerativePipeline":
        """Loads what `save_pretrained` wrote, or a finished run, on the CPU and in eval mode.

        Args:
            source: a folder, a run folder, or the name of a repository of the hub.

        Raises:
            FileNotFoundError: if a part is missing.
            ValueError: if the parts do not belong together or one is damaged.
        """
        folder = local(source)
        tokenizer = Tokenizer.from_pretrained(folder / "tokenizer")
        priors = [
            Prior.from_pretrained(folder / f"prior-{level}")
            for level in range(len(tokenizer.code_grids))
        ]
        if (folder / "pipeline.json").is_file():
            facts = read_json(folder / "pipeline.json", made_by="vqk export")
            found = [checkpoint.fingerprint(prior) for prior in priors]
            if [checkpoint.fingerprint(tokenizer), *found] != [
                facts["tokenizer"],
                *facts["priors"],
            ]:
                raise ValueError(f"{folder} must hold the models that pipeline.json names")
        else:
            facts = read_json(folder / "codes" / "manifest.json", made_by="vqk extract")
        return cls(tokenizer, priors, facts["class_names"])

    def _decode(self, codes: Codes, labels: Tensor, generator: torch.Generator) -> Samples:
        parameters = self.tokenizer.decode(codes, labels)
        return decoded(self.tokenizer.likelihood, parameters, codes, generator)


def decoded(
    likelihood: Likelihood, parameters: Tensor, codes: Codes, generator: torch.Generator
) -> Samples:
    """Means of a decoder's distributions, and entries drawn from them.

    Args:
        likelihood: of the decoder.
        parameters: `(B, C * P, *size)`.
        codes: what they were decoded from.
        generator: CPU generator.
    """
    means = likelihood.mean(parameters)
    if not likelihood.has_likelihood:
        return Samples(codes, means, None)
    uniforms = torch.rand(means.shape, generator=generator, dtype=torch.float64)
    drawn = likelihood.draw(parameters, uniforms.to(means.device))
    return Samples(codes, means, drawn.to(torch.uint8))


def _parts(tokenizer: Tokenizer, priors: Sequence[Prior]) -> dict[str, Any]:
    """Fingerprints of the models, as they stand in pipeline.json."""
    return {
        "tokenizer": checkpoint.fingerprint(tokenizer),
        "priors": [checkpoint.fingerprint(prior) for prior in priors],
    }


def _check(tokenizer: Tokenizer, priors: Sequence[Prior]) -> None:
    """Refuses priors that cannot be, or are not, priors of this tokenizer's codes."""
    levels = tuple(zip(tokenizer.codebook_sizes, tokenizer.code_grids, strict=True))
    if len(priors) != len(levels):
        raise ValueError(f"priors must be one for each of {len(levels)} levels, got {len(priors)}")
    made_for = checkpoint.fingerprint(tokenizer)
    for level, prior in enumerate(priors):
        size, grid = levels[level]
        space = CodeSpace(size, grid, tokenizer.signal.num_labels, levels[:level])
        if prior.space != space:
            raise ValueError(f"priors[{level}] must model {space}, got {prior.space}")
        if prior.facts.get("tokenizer", made_for) != made_for:
            raise ValueError(
                f"priors[{level}] must model codes of tokenizer {made_for[:12]}, got codes of "
                f"tokenizer {prior.facts['tokenizer'][:12]}"
            )


def _cells(mask: Tensor, grid: tuple[int, ...]) -> Tensor:
    """`(*size)` to `(*grid)` bool: true where all entries of a cell are.

    Codes that share a cell, as those of several channels or code maps do, have a last axis of the
    grid to themselves.
    """
    cells = grid[: mask.ndim]
    unknown = (~mask).float()[None, None]
    known = ~MAX_POOL[mask.ndim](unknown, cells)[0, 0].bool()
    return known.view(*cells, *[1] * (len(grid) - mask.ndim)).expand(grid)
