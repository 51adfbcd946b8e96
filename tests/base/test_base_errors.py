"""Messages of errors: one line that can be read, whatever they quote."""

from __future__ import annotations

import pickle

import pytest

from lhuc_asr.base.errors import LONGEST_MESSAGE, CheckpointError, LhucError, OutputError


@pytest.mark.parametrize("kind", [LhucError, CheckpointError, OutputError])
def test_a_message_is_one_line_that_can_be_read(kind: type[LhucError]) -> None:
    """Libraries say several lines, and files have keys of thousands of characters."""
    error = kind("model.safetensors: damaged (sizes\n\tdiffer:\u2028 " + "x" * 10_000 + "); copy it again")
    message = str(error)
    assert message.startswith("model.safetensors: damaged (sizes differ: xxx")
    assert message.endswith("xxx); copy it again")
    assert "[100" in message
    assert len(message) < LONGEST_MESSAGE + 30
    assert str(pickle.loads(pickle.dumps(error))) == message


def test_a_short_message_is_as_it_was_written() -> None:
    assert (
        str(CheckpointError("lexicon.txt, line 3: write 'abc  AE B K'")) == "lexicon.txt, line 3: write 'abc  AE B K'"
    )
    assert str(CheckpointError()) == ""
