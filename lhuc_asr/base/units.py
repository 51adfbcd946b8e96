"""Conversions of seconds, samples and frames, which are done here only.

Frames follow Kaldi's ``snip_edges`` convention: a frame exists only where its whole window lies inside the recording.
"""

FRAME_SHIFT_SECONDS = 0.010
FRAME_LENGTH_SECONDS = 0.025


def samples_of(seconds: float, sample_rate: int) -> int:
    """Number of samples in a stretch of time, rounded to the nearest sample.

    Example:
        >>> samples_of(0.025, 16000)
        400
    """
    return round(seconds * sample_rate)


def frames_of(seconds: float, sample_rate: int = 16000) -> int:
    """Number of whole analysis windows in ``seconds`` of audio.

    Example:
        >>> frames_of(1.0), frames_of(0.024)
        (98, 0)
    """
    samples = samples_of(seconds, sample_rate)
    window = samples_of(FRAME_LENGTH_SECONDS, sample_rate)
    shift = samples_of(FRAME_SHIFT_SECONDS, sample_rate)
    return 0 if samples < window else 1 + (samples - window) // shift


def seconds_of(frames: int) -> float:
    """The time of ``frames`` frame shifts, in seconds.

    Example:
        >>> seconds_of(150)
        1.5
    """
    return frames * FRAME_SHIFT_SECONDS
