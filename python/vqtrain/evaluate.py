"""Stage 5: measure tokenizer, priors and samples on held-out items.

    vqk eval runs/digits

Reads everything the stages before it wrote. Writes RUN/metrics.json and the pictures
RUN/reconstructions.png, RUN/interpolations.png, RUN/usage-0.png (one per level) and
RUN/neighbours.png. The numbers at the top of `metrics.json` are of the test split, which nothing
was fitted to or chosen on. What cannot be measured for a kind of model or data is absent, and
`skipped` says why.
"""

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vqtrain import checkpoint, codes
from vqtrain.config import RunConfig, parse
from vqtrain.data import load_dataset
from vqtrain.files import write_json
from vqtrain.measure import autoencoder, bits, reconstructions, samples
from vqtrain.measure.subject import Subject
from vqtrain.metrics.ladder import ladder, unfit
from vqtrain.runtime import stage, stage_seconds, start
from vqtrain.sample import load_samples
from vqtrain.train_prior import load_priors
from vqtrain.train_tokenizer import load_tokenizer
