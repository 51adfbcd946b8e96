"""A corpus of many speakers that a user names: a folder of recordings, or a Kaldi data directory."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lhuc_asr.recognizer.recordings import OnBad
    from lhuc_asr.recognizer.speaker_corpus import SpeakerCorpus

WAV_SCP = "wav.scp"


@contextmanager
def opened_corpus(given: str, own_tags: Collection[str], on_bad: OnBad) -> Iterator[SpeakerCorpus]:
    """A context with the recordings of a corpus, their speakers and their transcripts.

    Args:
        given: A folder of recordings (``speaker_corpus``), or a Kaldi data directory, which has a wav.scp.
        own_tags: Tags that the model's lexicon lists.
        on_bad: What happens to recordings that cannot be used.

    Raises:
        CorpusError: It is not a folder, has no recording, or a table is malformed.
    """
    from lhuc_asr.base.errors import CorpusError
    from lhuc_asr.recognizer.recordings import usable
    from lhuc_asr.recognizer.speaker_corpus import corpus_of, speaker_corpus

    folder = Path(given)
    if not folder.is_dir():
        raise CorpusError(f"{given}: is not a folder; a corpus is a folder with a folder for each speaker")
    if (folder / WAV_SCP).is_file():
        from lhuc_asr.corpus.kaldi_dir import read_kaldi_dir

        reading = read_kaldi_dir(folder, own_tags)
        for skip in reading.skipped:
            with usable(skip.id, on_bad):
                raise CorpusError(f"{skip.id}: {skip.reason}")
        corpus = corpus_of(reading.utterances, on_bad)
        if not corpus.speakers:
            raise CorpusError(f"{given}: no utterance can be used; the log has the reason of each")
        yield corpus
        return
    with speaker_corpus(folder, own_tags, on_bad) as corpus:
        yield corpus
