"""One tab of the enrolment page: what it says, and what it is answered.

    the page                     this side
    begin                        sentences, the seconds that are needed
    sound, sentence, file ...    heard: words of both sides, seconds so far; learned, when there are new parameters
    finish                       result: verdict, recordings transcribed with and without
    keep, delete                 kept, deleted

All is gone when the tab is: sound, words and parameters are in memory alone, until ``keep`` writes what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lhuc_asr.audio.formats import probe
from lhuc_asr.audio.recording import read_audio
from lhuc_asr.audio.utterance import Utterance
from lhuc_asr.base.errors import AudioError, LhucError
from lhuc_asr.base.extras import extra
from lhuc_asr.base.outputs import nameless_file
from lhuc_asr.recognizer.recognizer import Recognizer
from lhuc_asr.recognizer.speaker import Speaker
from lhuc_asr.recognizer.verdict import Verdict
from lhuc_asr.score.word_alignment import word_columns
from lhuc_asr.web.enrol_messages import (
    MOST_BYTES,
    MOST_MESSAGE_BYTES,
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
from lhuc_asr.web.enrolment import FULL_SCALE, NEEDED_SECONDS, Enrolment, Progress, Result, Row, Take, learn, result
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


@dataclass(frozen=True)
class House:
    """What all tabs share.

    Attributes:
        recognizer: The recognizer.
        sentences: What is read.
        folder: Folder of what is kept.
        listening: Threads that listen.
        learning: Threads that estimate parameters: one, which needs all cores.
        keeping: Held by the tab that writes what is kept.
    """

    recognizer: Recognizer
    sentences: Sequence[tuple[str, ...]]
    folder: Path
    listening: CapacityLimiter
    learning: CapacityLimiter
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
        self._learned: Speaker | None = None  # parameters that the enrolment does not have yet
        self._learns, self._note = False, ""
        self._result: Result | None = None
        self._kept: Kept | None = None
        self._ends = False  # whether all is said

    async def run(self) -> None:
        """Answer until the tab is closed, or says nothing for too long."""
        async with create_task_group() as group:
            with suppress(WebSocketDisconnect):
                await self._answer_all(group)
            group.cancel_scope.cancel()

    async def _answer_all(self, group: TaskGroup) -> None:
        while (message := await self._next()) is not None:
            try:
                if isinstance(message, bytes):
                    await self._hear(message, group)
                else:
                    await self._answer(read_message(message), group)
            except MessageError as error:
                await self._say("problem", text=str(error))
                await self._socket.close(1008)
                return
            except (LhucError, OSError) as error:
                await self._say("problem", text=str(error))

    async def _next(self) -> str | bytes | None:
        """The next message; None if the tab said nothing for too long."""
        with move_on_after(IDLE_SECONDS):
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(received.get("code", 1006))
            content: str | bytes = received["text"] if received.get("text") is not None else received["bytes"]
            return content
        await self._say("problem", text=f"nothing was said for {IDLE_SECONDS / 60:.0f} minutes; all is forgotten")
        await self._socket.close(1001)
        return None

    async def _answer(self, message: Anything, group: TaskGroup) -> None:
        match message:
            case Begin():
                await self._begin(message)
            case Sentence():
                await self._sentence(message, group)
            case File():
                await self._file(message, group)
            case Finish():
                await self._finish(group)
            case Keep():
                await self._keep(message)
            case Delete():
                await self._delete()

    async def _begin(self, message: Begin) -> None:
        if self._begun is not None:
            raise MessageError("begin: a tab is for one person")
        rate = None if message.way == "files" else message.rate
        self._enrolment = Enrolment(self._house.recognizer, message.name, rate, reads=message.way == "read")
        self._begun = message
        sentences = [" ".join(words) for words in self._house.sentences] if message.way == "read" else []
        await self._say("begun", sentences=sentences, needed=NEEDED_SECONDS)

    async def _hear(self, content: bytes, group: TaskGroup) -> None:
        if self._ends:
            return  # it was under way when all was said
        enrolment = self._going_on()
        if self._way() == "files":
            raise MessageError("sound: a file was not announced")
        if not content or len(content) % 2 or len(content) > MOST_MESSAGE_BYTES:
            raise MessageError(f"sound: {len(content)} bytes; expected samples of 16 bits, a second of them at most")
        progress = await self._listening(enrolment.hear, np.frombuffer(content, "<i2"))
        await self._progress(progress, group)

    async def _sentence(self, message: Sentence, group: TaskGroup) -> None:
        enrolment = self._going_on()
        if self._way() != "read" or message.number >= len(self._house.sentences):
            raise MessageError("sentence: there is no such sentence")
        words = self._house.sentences[message.number]
        try:
            progress = await self._listening(enrolment.end_take, words)
        except AudioError as error:
            await self._say("again", number=message.number, text=str(error))
            return
        await self._say("read", number=message.number)
        await self._progress(progress, group)

    async def _file(self, message: File, group: TaskGroup) -> None:
        enrolment = self._going_on()
        if self._way() != "files":
            raise MessageError("file: sound comes from the microphone")
        if message.bytes > MOST_BYTES:
            raise AudioError(f"{message.name}: {message.bytes / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f} MB a file")
        with nameless_file() as path:
            await self._say("send", name=message.name)
            with path.open("wb") as file:
                while (left := message.bytes - file.tell()) > 0:
                    part = await self._next()
                    if not isinstance(part, bytes) or not 0 < len(part) <= left:
                        raise MessageError(f"file: expected {left} bytes more of it")
                    file.write(part)
            try:
                samples = await self._listening(_samples, path, message.name, enrolment)
            except LhucError as error:
                raise AudioError(str(error).replace(str(path), message.name)) from error
        block = round(BLOCK_SECONDS * enrolment.sample_rate)
        for first in range(0, len(samples), block):
            progress = await self._listening(enrolment.hear, samples[first : first + block])
            await self._progress(progress, group)
        progress = await self._listening(enrolment.end_take)
        await self._say("file", name=message.name)
        await self._progress(progress, group)

    async def _progress(self, progress: Progress, group: TaskGroup) -> None:
        """Tell what was heard, and begin to learn if that is due."""
        enrolment = self._going_on()
        sides = {"without": progress.without, "adapted": progress.adapted}
        told = {
            name: None
            if heard is None
            else {
                "lines": [{"start": line[0].start, "words": [each.word for each in line]} for line in heard.lines],
                "unfinished": heard.unfinished,
            }
            for name, heard in sides.items()
        }
        await self._say("heard", seconds=progress.seconds, full=progress.full, **told)
        if self._learned is not None:
            learned, self._learned = self._learned, None
            await self._listening(enrolment.become, learned)
            await self._say("learned")
        if self._note:
            await self._say("note", text=self._note)
            self._note = ""
        if not self._learns and enrolment.is_due():
            self._learns = True
            group.start_soon(self._learn, enrolment, enrolment.takes())

    async def _learn(self, enrolment: Enrolment, takes: Sequence[Take]) -> None:
        """Estimate parameters of what was said so far; the enrolment takes them with the next block."""
        try:
            self._learned = await self._learning(
                learn, self._house.recognizer, enrolment.name, takes, enrolment.sample_rate
            )
        except LhucError as error:
            self._note = f"nothing is learned yet: {error}"
        finally:
            self._learns = False

    async def _finish(self, group: TaskGroup) -> None:
        enrolment = self._going_on()
        if self._way() == "speak":
            await self._listening(enrolment.end_take)
        takes = enrolment.takes()
        if not takes:
            raise AudioError("nothing was heard that could be learned from")
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
            except LhucError as error:
                self._ends = False
                await self._say("problem", text=str(error))
                return
            self._result = ended
            await self._say("result", **_told(ended))

    async def _keep(self, message: Keep) -> None:
        if self._result is None or self._enrolment is None:
            raise MessageError("keep: there is no result yet")
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
            "kept",
            file=str(self._kept.file.path.resolve()),
            recordings=None if recordings is None else str(recordings.path.resolve()),
        )

    async def _delete(self) -> None:
        if self._kept is not None:
            await to_thread.run_sync(self._kept.delete)
        self._kept = self._result = self._enrolment = self._learned = None
        self._ends = True
        await self._say("deleted")

    def _going_on(self) -> Enrolment:
        if self._enrolment is None or self._ends:
            raise MessageError("nothing is being recorded")
        return self._enrolment

    def _way(self) -> str:
        return "" if self._begun is None else self._begun.way

    async def _listening(self, work: Callable[..., ResultT], *arguments: Any) -> ResultT:
        return await to_thread.run_sync(work, *arguments, limiter=self._house.listening)

    async def _learning(self, work: Callable[..., ResultT], *arguments: Any) -> ResultT:
        # The thread of a tab that is closed ends by itself, and what it returns is dropped.
        return await to_thread.run_sync(work, *arguments, limiter=self._house.learning, abandon_on_cancel=True)

    async def _say(self, what: str, **content: Any) -> None:
        await self._socket.send_json({"is": what, **content})


def _samples(path: Path, name: str, enrolment: Enrolment) -> np.ndarray:
    """The samples of a file, int16, at the enrolment's rate."""
    info = probe(path)
    if info.seconds > enrolment.left_seconds:
        raise AudioError(
            f"{name}: {info.seconds:.0f} s long; {enrolment.left_seconds:.0f} s more are taken to learn from, cut it"
        )
    utterance = Utterance(name, "", "", path, 0.0, info.seconds, "")
    return (read_audio(utterance, enrolment.sample_rate) * FULL_SCALE).round().clip(max=FULL_SCALE - 1).astype(np.int16)


def _told(ended: Result) -> dict[str, Any]:
    """A result as the page shows it."""
    adaptation = ended.adaptation
    headline, tone = _headline(adaptation.verdict)
    learned = f"{adaptation.seconds:.0f} s of speech with {adaptation.words} words"
    why = _why(adaptation.verdict, reads=all(row.read is not None for row in ended.rows))
    return {
        "headline": headline,
        "tone": tone,
        "sentences": [why, f"It has learned from {learned}.", *ended.problems],
        "rows": [_told_row(row) for row in ended.rows],
    }


def _headline(verdict: Verdict | None) -> tuple[str, str]:
    """The verdict in a line, and its tone."""
    if verdict is None:
        return "Your voice file is ready; whether it helps cannot be told", ""
    if verdict.helps:
        return "Your voice file helps", "good"
    if verdict.hurts:
        return "Your voice file changes nothing, because a change would do harm", "bad"
    return "Your voice file makes no difference that can be told", ""


def _why(verdict: Verdict | None, *, reads: bool) -> str:
    """What a verdict stands on."""
    if verdict is None:
        return "There is too little speech, or the model does not work at all without what it learns of a person."
    words = (
        "that were not heard as they were written"
        if reads
        else "that are unlike what a second recognizer heard"
        if verdict.measure == "unlike"
        else "that the recognizer is unsure of"
    )
    return (
        f"Each half of what you said was tried with what the other half has taught. Words {words}: "
        f"{verdict.before:.1f} without, {verdict.after:.1f} with it."
    )


def _told_row(row: Row) -> dict[str, Any]:
    """The words of a recording beside each other, with what has become of each."""
    read = row.without if row.read is None else row.read
    columns = [
        [each.reference, each.before, each.after, str(each.fate)]
        if row.read is not None
        # Who was right is not known.
        else [each.before, each.after, "right" if each.before == each.after else "changed"]
        for each in word_columns(read, row.without, row.adapted)
    ]
    heads = ["without", "with"] if row.read is None else ["read", "without", "with"]
    texts = {"without": " ".join(row.without), "with": " ".join(row.adapted)}
    return {"name": row.name, "heads": heads, "columns": columns, "texts": texts}
