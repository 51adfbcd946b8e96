"""Feature extraction against the bare call of kaldi-native-fbank, in seconds of audio a second.

The bare call computes filterbanks and discards them. ``compute_features`` has only the window and the mel bins from the
library, scales the samples, computes the spectra of many frames at a time, and keeps the frames. ``extract`` adds
reading recordings, normalising each speaker and writing the store; with several workers also their start, which pays
only for corpora of hours.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import soundfile
from timing import Turns, show

from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.units import samples_of
from lhuc_asr.features.extraction import extract
from lhuc_asr.features.filterbank import SAMPLE_SCALE, FeatureConfig, compute_features, kaldi_options

# As in AN4 and in LibriSpeech: 6 minutes in all.
LENGTHS = (3.0,) * 40 + (14.0,) * 17
CONFIG = FeatureConfig()
# A copy. Without dither, as in the package's features: its random numbers would take more than half of the bare call.
OPTIONS = knf.FbankOptions.from_dict(kaldi_options(CONFIG).as_dict())
OPTIONS.frame_opts.dither = 0.0


def main() -> None:
    """Measure with 16 kHz noise."""
    generator = np.random.default_rng(1)
    recordings = [
        0.1 * generator.standard_normal(samples_of(seconds, CONFIG.sample_rate), dtype=np.float32)
        for seconds in LENGTHS
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        utterances = write_recordings(folder, recordings)
        scaled = [(SAMPLE_SCALE * samples).tolist() for samples in recordings]
        turns = Turns(
            {
                "kaldi-native-fbank, bare": lambda: [bare(samples) for samples in scaled],
                "compute_features": lambda: [compute_features(samples, CONFIG) for samples in recordings],
                "extract, 1 process": lambda: extract(folder / "one", utterances, CONFIG, processes=1),
                "extract, 2 processes": lambda: extract(folder / "two", utterances, CONFIG, processes=2),
            },
            seconds=30,
            clock=time.perf_counter,  # the work is done in other processes
        )
    base = "kaldi-native-fbank, bare"
    rows = [[part, f"{sum(LENGTHS) / turns.of(part).median:.0f}", turns.ratio(part, base)] for part in turns.seconds]
    show(
        f"filterbanks of {sum(LENGTHS):.0f} s of noise",
        ["", "seconds of audio a second", "time over the bare call [quartiles]"],
        rows,
    )


def bare(samples: list[float]) -> int:
    """The library's own work, on samples in the form that it takes."""
    computer = knf.OnlineFbank(OPTIONS)
    computer.accept_waveform(float(CONFIG.sample_rate), samples)
    computer.input_finished()
    return int(computer.num_frames_ready)


def write_recordings(folder: Path, recordings: list[np.ndarray]) -> list[Utterance]:
    """The recordings as 16-bit WAV files of ten speakers."""
    utterances = []
    for number, samples in enumerate(recordings):
        path = folder / f"{number}.wav"
        soundfile.write(path, samples, CONFIG.sample_rate)
        seconds = len(samples) / CONFIG.sample_rate
        utterances.append(Utterance(str(number), str(number % 10), "", path, 0.0, seconds, ""))
    return utterances


if __name__ == "__main__":
    main()
