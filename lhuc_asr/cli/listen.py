"""``arecord -q -t raw -f S16_LE -r 16000 | lhuc-asr listen MODEL [--speaker NAME]``."""

from __future__ import annotations

import signal
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
# What files of sound begin with.
FILE_MARKS = (b"RIFF", b"fLaC", b"OggS", b"FORM", b"ID3")
LONGEST_MARK = max(map(len, FILE_MARKS))


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

    A line is written when the person pauses. On a terminal the words so far are shown, and may still change. Listening
    ends with the sound, or with Ctrl-C. With --learn, each line is learned from, and the next is heard with that.
    """
    from lhuc_asr.base.errors import AudioError
    from lhuc_asr.recognizer.recognizer import load

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
        recognizer.check_output(learn, name)
    screen, count = _Screen(times), 0
    with _Interruption() as interruption:
        for block in _blocks(sys.stdin.buffer, round(BLOCK_SECONDS * live.sample_rate), interruption):
            screen.show(live.hear(block))
            count += len(block)
        screen.show(live.end())  # what was said until an interruption stands
    if not count:
        raise AudioError("no sound came on standard input; lhuc-asr listen --help says what it takes")
    if learn is not None:
        if not live.learned_seconds:
            raise AudioError(f"{learn}: not written, nothing was said that could be learned from")
        live.speaker.save(learn)
        typer.echo(f"{name}: {learn}  {live.learned_seconds:.1f} s learned from", err=True)


class _Interruption:
    """A context in which Ctrl-C ends the sound: at once while it is waited for, otherwise after the work on a block.

    A second Ctrl-C during the work interrupts it.
    """

    def __init__(self) -> None:
        self.asked = self.waiting = False

    def __enter__(self) -> _Interruption:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, *_: object) -> None:
        if self.asked or self.waiting:
            raise KeyboardInterrupt
        self.asked = True


def _blocks(stream: BinaryIO, samples: int, interruption: _Interruption) -> Iterator[np.ndarray]:
    """Blocks of samples, int16, until the stream ends or Ctrl-C ends it.

    Raises:
        AudioError: The stream begins as a file of sound does, whose header would be taken for sound.
    """
    import numpy as np

    held, first = b"", True
    while not interruption.asked:
        interruption.waiting = True
        try:
            # read1 gives what is there, so that a slow microphone is not waited for.
            part = stream.read1(samples * BYTES_PER_SAMPLE)  # type: ignore[attr-defined]
        except KeyboardInterrupt:
            return
        finally:
            interruption.waiting = False
        if not part:
            return
        held += part
        if first and len(held) >= LONGEST_MARK:
            _refuse_header(held)
            first = False
        whole = len(held) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE
        yield np.frombuffer(held[:whole], "<i2")
        held = held[whole:]


def _refuse_header(beginning: bytes) -> None:
    from lhuc_asr.base.errors import AudioError

    for mark in FILE_MARKS:
        if beginning.startswith(mark):
            raise AudioError(
                f"standard input is a file of sound (it begins with {mark.decode()}), not raw samples; lhuc-asr "
                "transcribe reads files, and sox or ffmpeg make raw samples of them"
            )


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
        for words in heard.lines:
            begin = f"{words[0].start:8.2f}  " if self._times else ""
            lines += begin + " ".join(word.word for word in words) + "\n"
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
