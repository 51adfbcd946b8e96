"""``arecord -q -t raw -f S16_LE -r 16000 | lhuc-asr listen MODEL [--speaker NAME]``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from lhuc_asr.cli.options import Device, ModelFolder, Person, Threads, take_threads

if TYPE_CHECKING:
    import numpy as np

    from lhuc_asr.recognizer.live import Heard

# Seconds of sound that are taken at a time.
BLOCK_SECONDS = 0.1
BYTES_PER_SAMPLE = 2


def listen(
    model: ModelFolder,
    speaker: Person = None,
    learn: Annotated[
        Path | None,
        typer.Option(
            "--learn",
            metavar="FILE",
            help="Adapt to the person while listening, from --speaker or from nothing, and write the person's file at "
            "the end; without --speaker the file's name is the person's.",
        ),
    ] = None,
    times: Annotated[bool, typer.Option("--times", help="Begin each line with the time of its first word.")] = False,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Write down what one person says, while they say it.

    The sound comes from standard input: raw samples of 16 bits, little-endian, one channel, at the model's sample rate
    (lhuc-asr info MODEL), as from: arecord -q -t raw -f S16_LE -r 16000 -c 1

    A line is written when the person pauses. On a terminal the words so far are shown, and may still change. It ends
    with the sound, or with Ctrl-C. With --learn, each line's speech is learned from, and the next is heard with that.
    """
    from lhuc_asr.base.errors import AudioError
    from lhuc_asr.recognizer.recognizer import load
    from lhuc_asr.recognizer.speaker import check_file_of

    if sys.stdin.isatty():
        raise AudioError(
            "standard input is a keyboard; give it raw sound: arecord -q -t raw -f S16_LE -r 16000 -c 1 | lhuc-asr "
            "listen MODEL"
        )
    take_threads(threads)
    recognizer = load(model, device)
    person = None if speaker is None else recognizer.load_speaker(speaker)
    name = "" if learn is None else learn.stem if person is None else person.name
    live = recognizer.listen(person, learn=learn is not None, name=name)
    if learn is not None:
        check_file_of(learn, name, recognizer.is_network, overwrite=False)
    screen, count = _Screen(times), 0
    try:
        for block in _blocks(sys.stdin.buffer, round(BLOCK_SECONDS * live.sample_rate)):
            screen.show(live.hear(block))
            count += len(block)
    except KeyboardInterrupt:  # what was said until then stands
        pass
    screen.show(live.end())
    if not count:
        raise AudioError("no sound came on standard input; lhuc-asr listen --help says what it takes")
    if learn is not None:
        if not live.learned_seconds:
            raise AudioError(f"{learn}: not written, nothing was said that could be learned from")
        live.speaker.save(learn)
        typer.echo(f"{name}: {learn}  {live.learned_seconds:.1f} s learned from", err=True)


def _blocks(stream: BinaryIO, samples: int) -> Iterator[np.ndarray]:
    """Blocks of samples in [-1, 1), float32."""
    import numpy as np

    held = b""
    # read1 gives what is there, so that a slow microphone is not waited for.
    while part := stream.read1(samples * BYTES_PER_SAMPLE):  # type: ignore[attr-defined]
        held += part
        whole = len(held) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE
        yield np.frombuffer(held[:whole], "<i2").astype(np.float32) / 32768.0
        held = held[whole:]


class _Screen:
    """Lines that stand, and on a terminal the words so far below them.

    Args:
        times: Whether a line begins with the time of its first word.
    """

    def __init__(self, times: bool) -> None:
        self._times, self._terminal, self._shown = times, sys.stdout.isatty(), 0

    def show(self, heard: Heard) -> None:
        """Write what a block of samples has added."""
        lines = ""
        if heard.finished:
            begin = f"{heard.finished[0].start:8.2f}  " if self._times else ""
            lines = begin + " ".join(word.word for word in heard.finished) + "\n"
        if not self._terminal:
            sys.stdout.write(lines)
        else:
            so_far = " ".join(heard.unfinished)[-self._width() :]
            sys.stdout.write(f"\r{' ' * self._shown}\r{lines}{so_far}")
            self._shown = len(so_far)
        sys.stdout.flush()

    @staticmethod
    def _width() -> int:
        import shutil

        return max(1, shutil.get_terminal_size().columns - 1)
