"""What is steady in a recording, and so is not speech, taken out of it.

Steady are a DC offset, whatever is below the lowest voice, and each frequency whose power hardly changes for seconds,
as those of mains hum and its harmonics or of a whistle.
"""

from __future__ import annotations

import numpy as np

# Half of the window of the spectra; the whole window tells frequencies apart that are 50 Hz apart.
HALF_WINDOW_SECONDS = 0.040

# Mains hum has 50 or 60 Hz; the window spreads it by 25 Hz. Voices keep their harmonics.
LOWEST_HERTZ = 100.0

# A frequency is steady where its quietest tenth has more than this part of its mean power. Noise has 0.1 (a tenth of
# exponential values is below 0.105 times their mean), speech less.
QUIET_TENTH, STEADY_PART = 0.1, 0.3

# A vowel may be steady for a second or two; nobody holds it for so long.
STEADY_SECONDS = 5.0


def without_steady(samples: np.ndarray, sample_rate: int, steady: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples without the frequencies that are steady, and which those are.

    The windows add up to 1 and overlap by half, so that samples of which nothing is taken out stay as they are.

    Args:
        samples: Shape (N,).
        sample_rate: Sample rate, hertz.
        steady: Whether each frequency of the spectrum was steady before, for samples too short to tell, shape (F,);
            empty at the beginning.
    """
    half = round(HALF_WINDOW_SECONDS * sample_rate)
    window = np.hanning(2 * half + 1)[:-1].astype(np.float32)
    # Edges are mirrored: a constant that begins there would be a click.
    padded = np.pad(samples, (half, half + -len(samples) % half), mode="symmetric")
    spectra = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, 2 * half)[::half] * window)
    if len(samples) >= STEADY_SECONDS * sample_rate:
        power = np.square(np.abs(spectra))
        steady = np.quantile(power, QUIET_TENTH, axis=0) > STEADY_PART * power.mean(axis=0)
    spectra[:, np.fft.rfftfreq(2 * half, 1 / sample_rate) < LOWEST_HERTZ] = 0.0
    spectra[:, np.flatnonzero(steady)] = 0.0
    frames = np.fft.irfft(spectra, 2 * half)  # (windows, 2 * half)
    changing: np.ndarray = (frames[:-1, half:] + frames[1:, :half]).reshape(-1)[: len(samples)]
    return changing, steady
