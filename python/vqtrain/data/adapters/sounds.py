"""Sound files to mu-law levels. Needs soundfile (extra `audio`)."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from scipy.signal import resample_poly
from torch import Tensor

from vqtrain.data.sound import mu_law


def levels_of(path: Path, sample_rate: int, least: int) -> Tensor:
    """Reads a file as one channel (the mean of all), resamples and compands it.

    Args:
        path: WAV, FLAC, Ogg or anything else that libsndfile reads.
        sample_rate: of the result, in Hz.
        least: samples; a shorter sound gets silence on both sides.

    Returns:
        `(1, T)` uint8, 256 mu-law levels, T at least `least`.

    Raises:
        ModuleNotFoundError: if soundfile is not installed.
        ValueError: if the file cannot be read.
    """
    soundfile = import_soundfile()
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} must be a sound file, got: {error}") from error
    wave = samples.mean(axis=1)
    if rate != sample_rate:
        common = math.gcd(rate, sample_rate)
        wave = resample_poly(wave, sample_rate // common, rate // common)
    missing = max(0, least - len(wave))
    padded = F.pad(torch.as_tensor(wave), (missing // 2, missing - missing // 2))
    return mu_law(padded)[None]


def import_soundfile() -> Any:
    """The module, or an error that says how to get it."""
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "sound files need soundfile: pip install 'vqkernels[audio]'"
        ) from error
    return soundfile
