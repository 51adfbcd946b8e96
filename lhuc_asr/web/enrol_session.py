"""One tab of the enrolment page: what it says, and what it is answered.

    the page                     this side
    begin                        sentences, the seconds that are needed
    sound, sentence, file ...    heard: words of both sides, seconds so far; learned, when there are new parameters
    finish                       result: verdict, recordings transcribed with and without
    keep, delete                 kept, deleted

All is gone when the tab is: sound, words and parameters are in memory alone, until ``keep`` writes what was asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.destinations import shown
from lhuc_asr.base.errors import AudioError, LhucError
from lhuc_asr.base.extras import extra
from lhuc_asr.base.outputs import nameless_file
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.web.enrol_messages import (
    MOST_BYTES,
    MOST_MESSAGE_BYTES,
    MOST_VALUES,
    Abandon,
    Anything,
    Begin,
    Delete,
    File,
    Finish,
    Keep,
    MessageError,
    Sentence,
    read_message,
)
from lhuc_asr.web.enrol_words import told_heard, told_result
from lhuc_asr.web.enrolment import FULL_SCALE, NEEDED_SECONDS, Enrolment, Progress, Result, Take, learn, result
from lhuc_asr.web.kept import Kept, keep

with extra("enrol"):
    from anyio import CapacityLimiter, Lock, create_task_group, move_on_after, to_thread
    from anyio.abc import TaskGroup
    from starlette.websockets import WebSocket, WebSocketDisconnect

# A tab that says nothing for so long is closed.
IDLE_SECONDS = 900.0
# A file is heard in blocks of so many seconds.
BLOCK_SECONDS = 1.0

ResultT = TypeVar("ResultT")


class TabClosed(Exception):
    """The tab is closed from this side."""


@dataclass(frozen=True)
class House:
    """What all tabs share.

    Attributes:
        recognizer: The recognizer.
        sentences: What is read.
        folder: Folder of what is kept.
        listening: Threads that listen.
        waiting: Threads that learn, or wait to.
        learning: Held by the one that learns; it needs all cores.
        keeping: Held by the tab that writes what is kept.
    """

    recognizer: Recognizer
    sentences: Sequence[tuple[str, ...]]
    folder: Path
    listening: CapacityLimiter
    waiting: CapacityLimiter
    learning: threading.Lock
    keeping: Lock


class Session:
    """One tab.

    Args:
        house: What all tabs share.
        socket: The connection, accepted.
    """

    def __init__(self, house: House, socket: WebSocket) -> None:
        self._house, self._socket = house, socket
        self._enrolment: Enrolment | None = None
        self._begun: Begin | None = None
        self._unanswered: str | None = None  # a message that came in the middle of a file
        self._learned: Speaker | None = None  # parameters that the enrolment does not have yet
        self._learns, self._note = False, ""
        self._ends = False  # whether all is said
        self._result: Result | None = None
        self._kept: Kept | None = None
        self._gone = threading.Event()  # nobody waits any more for what is learned

    async def run(self) -> None:
        """Answer until the tab is closed, or says nothing for too long."""
        try:
            async with create_task_group() as group:
                with suppress(WebSocketDisconnect, TabClosed):
                    await self._answer_all(group)
                group.cancel_scope.cancel()
        finally:
            self._gone.set()

    async def _answer_all(self, group: TaskGroup) -> None:
        while True:
            message = await self._next()
            try:
                if isinstance(message, bytes):
                    await self._hear(message, group)
                else:
                    await self._answer(read_message(message), group)
            except MessageError as error:
                await self._close(1008, str(error))
            except (LhucError, OSError) as error:
                await self._say("problem", text=str(error))

    async def _next(self) -> str | bytes:
        """The next message."""
        if self._unanswered is not None:
            message, self._unanswered = self._unanswered, None
            return message
        while True:
            with move_on_after(IDLE_SECONDS):
                received = await self._socket.receive()
                if received["type"] == "websocket.disconnect":
                    raise WebSocketDisconnect(received.get("code", 1006))
                content: str | bytes = received["text"] if received.get("text") is not None else received["bytes"]
                return content
            if not self._ends or self._result is not None:  # not while the tab waits for its result
                await self._close(1001, f"nothing was said for {IDLE_SECONDS / 60:.0f} minutes; all is forgotten")

    async def _close(self, code: int, why: str) -> NoReturn:
        await self._say("problem", text=why)
        await self._socket.close(code)
        raise TabClosed

    async def _answer(self, message: Anything, group: TaskGroup) -> None:
        match message:
            case Begin():
                await self._begin(message)
            case Keep():
                await self._keep(message)
            case Delete():
                await self._delete()
            case _ if self._ends:
                pass  # it was under way when all was said
            case Sentence():
                await self._sentence(message, group)
            case File():
                await self._file(message, group)
            case Finish():
                await self._finish(group)
            case Abandon():
                pass  # of a file that was refused

    async def _begin(self, message: Begin) -> None:
        if self._begun is not None:
            raise MessageError("begin: a tab is for one person")
        rate = None if message.way == "files" else message.rate
        self._enrolment = Enrolment(self._house.recognizer, message.name, rate, reads=message.way == "read")
        self._begun = message
        sentences = [" ".join(words) for words in self._house.sentences] if message.way == "read" else []
        await self._say("begun", sentences=sentences, needed=NEEDED_SECONDS)

    async def _hear(self, content: bytes, group: TaskGroup) -> None:
        enrolment = self._going_on()
        if self._ends or self._way() == "files":
            return  # it was under way when all was said, or is the rest of a file that was refused
        if not content or len(content) % 2 or len(content) > MOST_MESSAGE_BYTES:
            raise MessageError(f"sound: {len(content)} bytes; expected samples of 16 bits, a second of them at most")
        progress = await self._listening(enrolment.hear, np.frombuffer(content, "<i2"))
        await self._progress("sound", progress, group)

    async def _sentence(self, message: Sentence, group: TaskGroup) -> None:
        enrolment = self._going_on()
        if self._way() != "read" or message.number >= len(self._house.sentences):
            raise MessageError("sentence: a number that was not given out")
        words = self._house.sentences[message.number]
        try:
            progress = await self._listening(enrolment.end_take, words)
        except AudioError as error:
            await self._say("again", text=str(error))
            return
        await self._say("read")
        await self._progress("sentence", progress, group)

    async def _file(self, message: File, group: TaskGroup) -> None:
        enrolment = self._going_on()
        if self._way() != "files":
            raise MessageError("file: sound comes from the microphone")
        if message.bytes > MOST_BYTES:
            raise AudioError(f"{message.name}: {message.bytes / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f} MB a file")
        with nameless_file() as path:
            await self._say("send")
            if not await self._received(message.bytes, path):
                return
            try:
                samples = await self._listening(_samples, path, message.name, enrolment)
            except LhucError as error:
                raise AudioError(str(error).replace(str(path), message.name)) from error
        block = round(BLOCK_SECONDS * enrolment.sample_rate)
        for first in range(0, len(samples), block):
            progress = await self._listening(enrolment.hear, samples[first : first + block])
            await self._progress("file", progress, group)
        try:
            progress = await self._listening(enrolment.end_take)
        except AudioError as error:
            raise AudioError(f"{message.name}: no word was heard in it") from error
        await self._say("file")
        await self._progress("file", progress, group)

    async def _received(self, size: int, path: Path) -> bool:
        """Take the bytes of a file; whether all have come before the page said something else."""
        with path.open("wb") as file:
            while (left := size - file.tell()) > 0:
                part = await self._next()
                if isinstance(part, str):
                    self._unanswered = part
                    return False
                if not 0 < len(part) <= left:
                    raise MessageError(f"file: expected {left} bytes more of it")
                file.write(part)
        return True

    async def _progress(self, of: str, progress: Progress, group: TaskGroup) -> None:
        """Tell what was heard, and begin to learn if that is due."""
        enrolment = self._going_on()
        told = {"without": told_heard(progress.without), "adapted": told_heard(progress.adapted)}
        await self._say("heard", of=of, seconds=progress.seconds, full=progress.full, **told)
        if self._learned is not None:
            learned, self._learned = self._learned, None
            await self._listening(enrolment.become, learned)
            await self._say("learned")
        if self._note:
            await self._say("note", text=self._note)
            self._note = ""
        if not self._learns and enrolment.is_due() and (takes := enrolment.takes()):
            self._learns = True
            group.start_soon(self._learn, enrolment, takes)

    async def _learn(self, enrolment: Enrolment, takes: Sequence[Take]) -> None:
        """Estimate parameters of what was said so far; the enrolment takes them with the next block."""
        try:
            self._learned = await self._learning(
                learn, self._house.recognizer, enrolment.name, takes, enrolment.sample_rate
            )
        except (LhucError, OSError) as error:
            self._note = f"nothing is learned yet: {error}"
        finally:
            self._learns = False

    async def _finish(self, group: TaskGroup) -> None:
        enrolment = self._going_on()
        if self._way() == "speak":
            with suppress(AudioError):  # nothing was said since a result that failed
                await self._listening(enrolment.end_take)
        takes = enrolment.takes()
        if not takes:
            reads = self._way() == "read"
            missing = "no sentence has ended; press Next after you have read one" if reads else "no word was heard"
            raise AudioError(f"there is nothing to learn from: {missing}")
        self._ends = True
        await self._say("working")
        group.start_soon(self._end, enrolment, takes)

    async def _end(self, enrolment: Enrolment, takes: Sequence[Take]) -> None:
        """Work for the result while the tab is watched, so that one that is closed ends at once."""
        with suppress(WebSocketDisconnect):
            try:
                ended = await self._learning(
                    result, self._house.recognizer, enrolment.name, takes, enrolment.sample_rate
                )
            except (LhucError, OSError) as error:
                if not self._gone.is_set():
                    self._ends = False
                    await self._say("problem", text=str(error))
                return
            if not self._gone.is_set():
                self._result = ended
                await self._say("result", **told_result(ended))

    async def _keep(self, message: Keep) -> None:
        if self._result is None or self._enrolment is None:
            raise MessageError("keep: the result is not ready")
        person, takes, rate = self._result.adaptation.speaker, self._enrolment.takes(), self._enrolment.sample_rate
        wanted = takes if message.recordings else ()
        async with self._house.keeping:  # of two tabs with one name the second is told of the first one's file
            self._kept = await to_thread.run_sync(
                partial(
                    keep,
                    self._house.recognizer,
                    person,
                    wanted,
                    rate,
                    self._house.folder,
                    replace=message.replace,
                    before=self._kept,
                )
            )
        recordings = self._kept.recordings
        await self._say(
            "kept", file=shown(self._kept.file.path), recordings=None if recordings is None else shown(recordings.path)
        )

    async def _delete(self) -> None:
        if self._kept is not None:
            await to_thread.run_sync(self._kept.delete)
        self._gone.set()
        await self._say("deleted")
        await self._socket.close(1000)
        raise TabClosed

    def _going_on(self) -> Enrolment:
        if self._enrolment is None:
            raise MessageError("nobody has begun yet")
        return self._enrolment

    def _way(self) -> str:
        return "" if self._begun is None else self._begun.way

    async def _listening(self, work: Callable[..., ResultT], *arguments: Any) -> ResultT:
        return await to_thread.run_sync(work, *arguments, limiter=self._house.listening)

    async def _learning(self, work: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Do a work that needs all cores: one tab after the other, and not for one that is closed meanwhile.

        A thread cannot be stopped. That of a tab that is closed goes on, and the next one waits for it.
        """

        def alone() -> ResultT:
            with self._house.learning:
                if self._gone.is_set():
                    raise LhucError("the tab is closed")
                return work(*arguments)

        return await to_thread.run_sync(alone, limiter=self._house.waiting, abandon_on_cancel=True)

    async def _say(self, what: str, **content: Any) -> None:
        try:
            await self._socket.send_json({"is": what, **content})
        except RuntimeError as error:  # of a connection that is closed
            raise WebSocketDisconnect(1006) from error


def _samples(path: Path, name: str, enrolment: Enrolment) -> np.ndarray:
    """The samples of a file, int16, at the enrolment's rate."""
    info = probe(path)
    if info.seconds > enrolment.left_seconds:
        raise AudioError(
            f"{name}: {info.seconds:.0f} s long; {enrolment.left_seconds:.0f} s more are taken to learn from, cut it"
        )
    if info.frames * info.channels > MOST_VALUES:
        raise AudioError(f"{name}: more samples than five minutes of 48 kHz in two channels have; convert it")
    utterance = Utterance(name, "", "", path, 0.0, info.seconds, "")
    return (read_audio(utterance, enrolment.sample_rate) * FULL_SCALE).round().clip(max=FULL_SCALE - 1).astype(np.int16)
