"""What the enrolment page says to its server, as JSON: checked before it is believed.

Sound is no JSON: a message of bytes holds samples of 16 bits, little-endian, or a part of a file that was announced.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lhuc_asr.base.errors import LhucError

# Sample rates of browsers, hertz.
RATES = (8_000, 192_000)
# A file of sound, and what it holds: samples of all channels, as many as five minutes of 48 kHz in two channels have.
MOST_BYTES, MOST_VALUES = 100_000_000, 300 * 48_000 * 2
# A message of sound or of a file: a second at the highest rate.
MOST_MESSAGE_BYTES = 2 * 192_000
LONGEST_NAME = 200

# How a person gives their voice: reads sentences, speaks freely, or has recordings.
Way = Literal["read", "speak", "files"]


class Message(BaseModel):
    """A message; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Begin(Message):
    """The person begins."""

    do: Literal["begin"]
    name: Annotated[str, Field(max_length=LONGEST_NAME)]
    way: Way
    rate: Annotated[int, Field(ge=RATES[0], le=RATES[1])]


class Sentence(Message):
    """A sentence is read, whose number it is from 0."""

    do: Literal["sentence"]
    number: Annotated[int, Field(ge=0)]


class File(Message):
    """A file of sound follows, as messages of bytes."""

    do: Literal["file"]
    name: Annotated[str, Field(max_length=LONGEST_NAME)]
    bytes: Annotated[int, Field(ge=0)]


class Abandon(Message):
    """The rest of a file does not come: it cannot be read."""

    do: Literal["abandon"]


class Finish(Message):
    """All is said."""

    do: Literal["finish"]


class Keep(Message):
    """The person's file is to be written."""

    do: Literal["keep"]
    recordings: bool
    replace: bool


class Delete(Message):
    """Nothing is to stay."""

    do: Literal["delete"]


Anything = Begin | Sentence | File | Abandon | Finish | Keep | Delete
_ADAPTER: TypeAdapter[Anything] = TypeAdapter(Annotated[Anything, Field(discriminator="do")])


class MessageError(LhucError, ValueError):
    """A message that the page does not send."""


def read_message(text: str) -> Anything:
    """A message of the page.

    Raises:
        MessageError: It is none.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "message"
        raise MessageError(f"{place}: {first['msg']}") from error
