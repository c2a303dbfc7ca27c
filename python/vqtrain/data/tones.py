"""Short tones: 1024 mu-law samples, 6 notes times 3 instruments, and a rule that reads both.

An instrument is the strength of its harmonics and the envelope of its loudness. Tuning, phase,
loudness and envelope vary. At the nominal 8 kHz a tone lasts an eighth of a second.
"""

import math

import torch
from torch import Tensor

from vqtrain.data.config import DataConfig
from vqtrain.data.dataset import Dataset
from vqtrain.data.procedural import Recipe, between, procedural_dataset
from vqtrain.data.sound import from_mu_law, mu_law
from vqtrain.models.tokenizer import Signal

SIZE, LEVELS, SAMPLE_RATE = 1024, 256, 8000
# A pentatonic octave: no two notes are nearer than a whole tone.
NOTES = {"C3": 130.81, "D3": 146.83, "E3": 164.81, "G3": 196.00, "A3": 220.00, "C4": 261.63}
# Amplitudes of the first four harmonics.
INSTRUMENTS = {
    "flute": (1.0, 0.08, 0.0, 0.0),
    "reed": (1.0, 0.0, 0.55, 0.0),
    "string": (1.0, 0.6, 0.4, 0.25),
}
CLASSES = tuple(f"{instrument} {note}" for note in NOTES for instrument in INSTRUMENTS)
CENTS = 10  # mistuning, either way, in hundredths of a semitone
PADDED = 8 * SIZE  # a spectrum of 1 Hz steps, roughly, by zero padding


def load_tones(config: DataConfig, seed: int) -> Dataset:
    """The data set; see `procedural_dataset`."""
    signal = Signal(size=(SIZE,), channels=1, levels=LEVELS, num_labels=len(CLASSES))
    recipe = Recipe(render, factors=4, signal=signal, class_names=CLASSES)
    return procedural_dataset(dict.fromkeys(("train", "validation", "test"), recipe), config, seed)


def render(labels: Tensor, u: Tensor) -> Tensor:
    """Plays tones.

    Args:
        labels: `(n,)` int64, `note * 3 + instrument`.
        u: `(n, 4)` uniforms: tuning, phase, loudness, envelope.

    Returns:
        `(n, 1, 1024)` uint8 mu-law levels.
    """
    tuning, phase, loudness, envelope = u.unbind(1)
    note, instrument = factors_of(labels)
    pitch = _pitches()[note] * 2 ** (between(tuning, -CENTS, CENTS) / 1200)
    seconds = torch.arange(SIZE, dtype=torch.float64) / SAMPLE_RATE
    cycles = pitch[:, None] * seconds + phase[:, None]
    strengths = _strengths()[instrument]
    wave = torch.zeros_like(cycles)
    for harmonic in range(strengths.shape[1]):
        wave += strengths[:, harmonic, None] * (2 * math.pi * (harmonic + 1) * cycles).sin()
    wave *= (between(loudness, 0.4, 0.9) / strengths.sum(1))[:, None]
    return mu_law(wave * _envelope(instrument, envelope, seconds), LEVELS)[:, None]


def read_tones(x: Tensor) -> tuple[Tensor, Tensor]:
    """Reads note and instrument from the spectrum.

    The note is the nearest one to the strongest partial within the octave; the instrument is the
    one whose harmonics have the nearest relative strengths.

    Args:
        x: `(n, 1, 1024)` mu-law levels, integer or floating.

    Returns:
        Two `(n,)` int64 tensors, indices of `NOTES` and `INSTRUMENTS`; -1 where there is silence.
    """
    wave = from_mu_law(x[:, 0], LEVELS)
    wave = wave - wave.mean(1, keepdim=True)
    window = torch.hann_window(SIZE, periodic=False, device=wave.device)
    spectrum = torch.fft.rfft(wave * window, n=PADDED).abs()
    step = SAMPLE_RATE / PADDED
    low, high = (int(factor / step) for factor in (0.9 * NOTES["C3"], 1.1 * NOTES["C4"]))
    peak = spectrum[:, low:high].argmax(1) + low
    notes = (peak * step).double()[:, None].log() - _pitches().to(wave.device).log()
    partials = torch.stack([_around(spectrum, peak * k) for k in (1, 2, 3, 4)], dim=1)
    relative = partials / partials[:, :1].clamp(min=1e-9)
    difference = relative.double()[:, None] - _strengths().to(wave.device)
    silent = spectrum.amax(1) < 1.0
    return (
        notes.abs().argmin(1).masked_fill(silent, -1),
        difference.square().sum(2).argmin(1).masked_fill(silent, -1),
    )


def factors_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Note and instrument of labels, as `read_tones` returns them."""
    return labels // len(INSTRUMENTS), labels % len(INSTRUMENTS)


def _around(spectrum: Tensor, bins: Tensor) -> Tensor:
    """The largest of a few bins: harmonics are not exactly at multiples of a rounded peak."""
    near = bins[:, None] + torch.arange(-4, 5, device=bins.device)
    return spectrum.gather(1, near).amax(1)


def _envelope(instrument: Tensor, u: Tensor, seconds: Tensor) -> Tensor:
    """Loudness over time: a flute and a reed swell and hold, a string is plucked and fades."""
    attack = 1 - (-seconds / between(u, 0.004, 0.02)[:, None]).exp()
    fade = (-seconds / between(u, 0.05, 0.15)[:, None]).exp()
    plucked = (instrument == list(INSTRUMENTS).index("string"))[:, None]
    return torch.where(plucked, fade, attack)


def _pitches() -> Tensor:
    return torch.tensor(list(NOTES.values()), dtype=torch.float64)


def _strengths() -> Tensor:
    return torch.tensor(list(INSTRUMENTS.values()), dtype=torch.float64)
