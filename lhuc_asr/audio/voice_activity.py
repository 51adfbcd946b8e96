"""The parts of a recording in which somebody speaks, by Silero's network for voice activity (extra ``vad``).

The network gives the probability of speech of each 32 ms, from these and what came before, at 8 or 16 kHz. Its weights
are in the package silero-vad, so nothing is downloaded. A recording is read, resampled and judged in blocks.

Source: Silero Team, "Silero VAD: pre-trained enterprise-grade Voice Activity Detector", 2024,
https://github.com/snakers4/silero-vad.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.audio.decoding import read_blocks
from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.resampling import resample_blocks
from lhuc_asr.base.extras import extra
from lhuc_asr.base.units import samples_of

# Samples that the network judges at once, by their rate: 32 ms.
WINDOWS = {16000: 512, 8000: 256}
# A block of ten seconds: the memory does not grow with the recording.
BLOCK_SECONDS = 10
# Silero's own choice is to leave out speech of less than 250 ms, which short words are. Two windows are not a click.
LEAST_SPEECH_MS = 60


class VoiceActivity:
    """Silero's detector; one thread uses it at a time.

    Raises:
        MissingExtraError: silero-vad is not installed.
    """

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        with extra("vad"):
            from silero_vad import get_speech_timestamps_from_probs, load_silero_vad
        torch.set_num_threads(threads)  # silero_vad sets it to 1 where it is imported
        with warnings.catch_warnings():
            # The network is TorchScript, which torch calls deprecated, and still loads.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._network = load_silero_vad()
        self._parts_of = get_speech_timestamps_from_probs

    def parts(self, path: Path, start: float, seconds: float, channel: int | None = None) -> list[tuple[float, float]]:
        """The parts with speech in a recording, or in a part of it.

        Args:
            path: The recording.
            start: Beginning of the part, in seconds.
            seconds: Length of the part.
            channel: Number of the channel to take, from 1; None for the mean of all.

        Returns:
            Beginning and end of each part with speech, in seconds from ``start``, in order; pauses between them last
            100 ms or more.

        Raises:
            AudioError: The recording is damaged.
        """
        info = probe(path)
        rate = 16000 if info.sample_rate >= 16000 else 8000
        first = samples_of(start, info.sample_rate)
        count = min(samples_of(start + seconds, info.sample_rate), info.frames) - first
        blocks = read_blocks(path, first, count, BLOCK_SECONDS * info.sample_rate)
        one_channel = (block.mean(axis=1) if channel is None else block[:, channel - 1] for block in blocks)
        probabilities = self._probabilities(resample_blocks(one_channel, info.sample_rate, rate), rate)
        parts = self._parts_of(list(probabilities), sampling_rate=rate, min_speech_duration_ms=LEAST_SPEECH_MS)
        return [(part["start"] / rate, min(part["end"] / rate, seconds)) for part in parts]

    def _probabilities(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[float]:
        """Probability of speech of each window; the last one is filled with silence."""
        window, rest = WINDOWS[rate], np.zeros(0, dtype=np.float32)
        self._network.reset_states()
        for block in blocks:
            samples = np.concatenate([rest, block])
            whole = len(samples) // window * window
            rest = samples[whole:]
            yield from self._judged(samples[:whole].reshape(-1, window), rate)
        if len(rest):
            yield from self._judged(np.pad(rest, (0, window - len(rest)))[None], rate)

    def _judged(self, windows: np.ndarray, rate: int) -> list[float]:
        with torch.no_grad():
            return [float(self._network(window, rate)) for window in torch.from_numpy(windows)]
