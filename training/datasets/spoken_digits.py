"""Spoken digits, synthesised: sequences of English digits in voices that vary, with their words.

Each word is a row of sounds; a sound is noise or a buzz of the voice's pitch, coloured by the
resonances (formants) of a mouth, as in a formant synthesiser (Klatt, 1980). A voice has a pitch, a
size of mouth, and a rate of speech; test voices lie between and beyond those trained on, none is
the same. What the network gets is the logarithm of the energy in 40 bands of frequency on the mel
scale.

Inputs float32 [samples, 160, 40]; labels int64 [samples, 5]: one to five digits, -1 behind them.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.datasets.samples import DataSet, Samples

STEPS, BANDS = 160, 40
MOST_WORDS = 5
NOTHING = -1
CLASSES = tuple("0123456789")
RATE_HZ = 8000
_HOP, _WINDOW = 128, 256  # 16 and 32 ms
_SEED = 11
_MULTIPLE = 32  # lengths without large prime factors are transformed several times as fast

# Formants of vowels in Hz, of Peterson and Barney's men (1952) and common tables for the others.
_FORMANTS: dict[str, tuple[float, float, float]] = {
    "i": (270, 2290, 3010),
    "I": (390, 1990, 2550),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "A": (640, 1190, 2390),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "r": (490, 1350, 1690),
    "w": (300, 610, 2200),
    "n": (280, 1700, 2600),
    "v": (220, 1100, 2080),
    "z": (200, 1500, 2600),
}
# Noises: centre and width of their band in Hz, loudness.
_NOISES: dict[str, tuple[float, float, float]] = {
    "s": (3400, 500, 0.5),
    "f": (2500, 1500, 0.15),
    "T": (2900, 900, 0.15),
    "t": (3000, 900, 0.6),
    "k": (1800, 600, 0.5),
    "z": (3300, 500, 0.3),
    "v": (2400, 1200, 0.08),
}
# The words as sounds with their durations in ms; "." is silence, as before a plosive.
_WORDS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("z", 80), ("I", 80), ("r", 70), ("o", 140)),
    (("w", 70), ("A", 130), ("n", 100)),
    ((".", 40), ("t", 40), ("u", 190)),
    (("T", 80), ("r", 70), ("i", 180)),
    (("f", 90), ("o", 150), ("r", 100)),
    (("f", 90), ("a", 90), ("I", 90), ("v", 80)),
    (("s", 100), ("I", 80), (".", 40), ("k", 40), ("s", 90)),
    (("s", 100), ("e", 80), ("v", 60), ("A", 60), ("n", 90)),
    (("e", 90), ("I", 90), (".", 50), ("t", 50)),
    (("n", 80), ("a", 90), ("I", 90), ("n", 90)),
)


@dataclass(frozen=True)
class Voice:
    """How somebody speaks: pitch, how much higher all formants lie, how fast, with what noise."""

    pitch_hz: float
    mouth: float
    rate: float
    noise: float


def load(*, training: int = 4_000, test: int = 500) -> DataSet:
    """Training voices and rates, and others for testing."""
    random = np.random.default_rng(_SEED)
    return DataSet(
        training=_samples(training, held_out=False, random=random),
        test=_samples(test, held_out=True, random=random),
        classes=CLASSES,
    )


def draw_voice(*, held_out: bool, random: np.random.Generator) -> Voice:
    """A voice; those held out have pitches and rates of their own, in gaps and at the ends."""
    gaps = [(105, 120), (170, 190), (240, 260)] if held_out else [(85, 105), (120, 170), (190, 240)]
    rates = [(0.78, 0.84), (0.98, 1.04), (1.22, 1.28)] if held_out else [(0.84, 0.98), (1.04, 1.22)]
    low, high = gaps[int(random.integers(len(gaps)))]
    slow, fast = rates[int(random.integers(len(rates)))]
    pitch = random.uniform(low, high)
    return Voice(
        pitch_hz=pitch,
        mouth=0.92 + 0.2 * (pitch - 85) / 175 + random.uniform(-0.04, 0.04),
        rate=random.uniform(slow, fast),
        noise=random.uniform(0.002, 0.02),
    )


def speak(digits: list[int], voice: Voice, *, random: np.random.Generator) -> NDArray[np.float64]:
    """The sound of these digits, at 8,000 numbers a second, about as loud as 1."""
    pieces = [_silence(random.uniform(30, 120))]
    for digit in digits:
        for sound, duration_ms in _WORDS[digit]:
            length_ms = duration_ms / voice.rate * random.uniform(0.9, 1.1)
            pieces.append(_sound(sound, length_ms, voice=voice, random=random))
        pieces.append(_silence(random.uniform(20, 90) / voice.rate))
    wave = np.concatenate(pieces)
    return wave + voice.noise * random.standard_normal(len(wave))


def features(wave: NDArray[np.float64]) -> NDArray[np.float32]:
    """The logarithm of the energy in 40 mel bands, every 16 ms: float32 [160, 40], cut or filled.

    It is scaled to lie about in [-1.5, 2.5].
    """
    wave = np.pad(wave, (0, max(0, STEPS * _HOP + _WINDOW - len(wave))))
    starts = np.arange(STEPS) * _HOP
    frames = wave[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    energy = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    bands = np.log(energy @ _mel_bands().T + 1e-3)
    scaled: NDArray[np.float32] = ((bands + 2) / 4).astype(np.float32)
    return scaled


def _samples(count: int, *, held_out: bool, random: np.random.Generator) -> Samples:
    inputs = np.zeros((count, STEPS, BANDS), np.float32)
    labels = np.full((count, MOST_WORDS), NOTHING, np.int64)
    for row in range(count):
        digits = random.integers(0, 10, int(random.integers(1, MOST_WORDS + 1))).tolist()
        voice = draw_voice(held_out=held_out, random=random)
        inputs[row] = features(speak(digits, voice, random=random))
        labels[row, : len(digits)] = digits
    return Samples(inputs=inputs, labels=labels)


def _silence(duration_ms: float) -> NDArray[np.float64]:
    return np.zeros(round(duration_ms * RATE_HZ / 1000))


def _sound(
    sound: str, duration_ms: float, *, voice: Voice, random: np.random.Generator
) -> NDArray[np.float64]:
    """One sound, rising and falling within 10 ms."""
    length = _MULTIPLE * max(round(duration_ms * RATE_HZ / 1000 / _MULTIPLE), 1)
    spectrum: NDArray[np.complex128] = np.zeros(length // 2 + 1, np.complex128)
    frequency = np.arange(len(spectrum)) * (RATE_HZ / length)
    if sound in _FORMANTS:
        spectrum = spectrum + _buzz(length, voice=voice, random=random) * _resonance(
            frequency, [formant * voice.mouth for formant in _FORMANTS[sound]]
        )
    if sound in _NOISES:
        centre, width, loudness = _NOISES[sound]
        shape = np.exp(-(((frequency - centre * voice.mouth**0.5) / width) ** 2) / 2)
        spectrum = spectrum + loudness * np.fft.rfft(random.standard_normal(length)) * shape
    ramp = np.minimum(1, np.arange(length) / 80)
    wave: NDArray[np.float64] = np.fft.irfft(spectrum, length) * ramp * ramp[::-1]
    return wave


def _buzz(length: int, *, voice: Voice, random: np.random.Generator) -> NDArray[np.complex128]:
    """The spectrum of pulses at the voice's pitch, which glides a little."""
    glide = np.linspace(random.uniform(0.96, 1.04), random.uniform(0.96, 1.04), length)
    phase = np.cumsum(voice.pitch_hz * glide / RATE_HZ)
    pulses = (np.diff(np.floor(phase), prepend=0) > 0).astype(float)
    spectrum: NDArray[np.complex128] = 3 * np.fft.rfft(pulses)
    return spectrum


def _resonance(frequency: NDArray[Any], formants: list[float]) -> NDArray[np.float64]:
    """How loud each frequency comes out of a mouth with these formants."""
    loudness: NDArray[np.float64] = np.zeros(len(frequency))
    for place, formant in enumerate(formants):
        width = 60 + 0.05 * formant
        loudness += 0.6**place / np.sqrt(1 + ((frequency - formant) / width) ** 2)
    return loudness


@functools.cache
def _mel_bands() -> NDArray[np.float64]:
    """Triangles [bands, frequencies], evenly spaced on the mel scale."""
    highest = 2595 * np.log10(1 + RATE_HZ / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(_WINDOW, 1 / RATE_HZ)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    bands: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return bands
