"""What a program names as one person's recordings: files, opened recordings, or samples that it has in memory.

Samples are in a file without a name while they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from lhuc_asr.audio.formats import probe
from lhuc_asr.base.errors import AudioError, CorpusError
from lhuc_asr.base.outputs import nameless_file
from lhuc_asr.base.units import FRAME_LENGTH_SECONDS
from lhuc_asr.recognizer.recordings import OnBad, Recording, recordings, usable

# Samples of shape (N,), or (N, C) for C channels, and their rate in hertz. Floats have a full scale of 1.
Samples = tuple[Any, int]
# Recordings of one person: one or several files, folders, patterns, or samples with their rate.
Audio = str | Path | Samples | Sequence[str | Path | Samples | Recording]

ARRAY_NAME = "array"
# Subtype of WAV that keeps each sample as it is.
SUBTYPES = {"float32": "FLOAT", "float64": "DOUBLE", "int16": "PCM_16", "int32": "PCM_32"}
MOST_CHANNELS = 64


def is_samples(audio: object) -> bool:
    """Whether what a program gives is samples with their rate, and not the names of two recordings."""
    return isinstance(audio, tuple) and len(audio) == 2 and hasattr(audio[0], "shape")


def array_names(count: int) -> list[str]:
    """Names of recordings in memory: ``array``, or ``array-1``, ``array-2`` and so on where there are several."""
    return [ARRAY_NAME] if count == 1 else [f"{ARRAY_NAME}-{number}" for number in range(1, count + 1)]


@contextmanager
def recorded(name: str, samples: Samples) -> Iterator[Recording]:
    """A context with samples as a recording.

    Raises:
        AudioError: They are not samples, their rate is not a whole number of hertz, or they are too short.
    """
    values, rate = np.asarray(samples[0]), samples[1]
    if values.dtype.name not in SUBTYPES:
        raise AudioError(f"{name}: samples of type {values.dtype}; expected one of {', '.join(SUBTYPES)}")
    if values.ndim not in (1, 2) or (values.ndim == 2 and not 1 <= values.shape[1] <= MOST_CHANNELS):
        raise AudioError(f"{name}: samples of shape {values.shape}; expected (samples,) or (samples, channels)")
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or rate <= 0:
        raise AudioError(f"{name}: a sample rate of {rate!r}; expected a whole number of hertz")
    if len(values) < FRAME_LENGTH_SECONDS * rate:
        raise AudioError(f"{name}: {len(values)} samples are shorter than one window of features; leave it out")
    with nameless_file() as path:
        try:
            soundfile.write(str(path), values, int(rate), SUBTYPES[values.dtype.name], format="WAV")
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{name}: cannot be kept in a temporary file ({error.error_string}); set TMPDIR to a folder with space"
            ) from error
        yield Recording(name, path, probe(path), name)


@contextmanager
def opened(audio: Audio, on_bad: OnBad) -> Iterator[list[Recording]]:
    """A context with recordings that are opened, unless they were.

    Raises:
        CorpusError: They are of different kinds.
    """
    listed: list[Any] = [audio] if isinstance(audio, str | Path) or is_samples(audio) else list(audio)
    theirs = [each for each in listed if isinstance(each, Recording)]
    arrays = [each for each in listed if is_samples(each)]
    if (theirs and len(theirs) < len(listed)) or (arrays and len(arrays) < len(listed)):
        raise CorpusError("recordings of different kinds; give files or arrays or opened recordings, not some of each")
    with ExitStack() as stack:
        if not theirs and not arrays:
            theirs = stack.enter_context(recordings(listed, on_bad))
        for name, samples in zip(array_names(len(arrays)), arrays, strict=True):
            with usable(name, on_bad):
                theirs.append(stack.enter_context(recorded(name, samples)))
        yield theirs
