"""Mistakes of users and bad recordings: an error of one line with a remedy, or recordings skipped up to a limit."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lhuc_asr.audio.utterance import read_manifest
from lhuc_asr.base.atomic import read_json
from lhuc_asr.base.config import load_config
from lhuc_asr.base.errors import ConfigError, CorpusError, LexiconError, LhucError
from lhuc_asr.base.stages import Stages
from lhuc_asr.corpus.librispeech import read_librispeech
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.pipeline.config import ExperimentConfig
from lhuc_asr.pipeline.run import run_recipe

SAMPLE_RATE = 16000


class Corpus:
    """A Kaldi corpus that is copied from the synthetic voices, to be broken."""

    def __init__(self, folder: Path, voices: Path) -> None:
        self.folder = folder
        self.train, self.test = folder / "train", folder / "test"
        for split in (self.train, self.test):
            split.mkdir(parents=True)
            utterances = read_librispeech(voices, [split.name]).utterances
            recordings = {u.id: Path(shutil.copy(u.audio, split / u.audio.name)) for u in utterances}
            self.write(split, "wav.scp", {id: str(path) for id, path in recordings.items()})
            self.write(split, "utt2spk", {u.id: u.speaker for u in utterances})
            self.write(split, "text", {u.id: u.text for u in utterances})

    @staticmethod
    def write(split: Path, name: str, rows: dict[str, str]) -> None:
        (split / name).write_text("".join(f"{id} {value}\n" for id, value in rows.items()), encoding="utf-8")

    @staticmethod
    def read(split: Path, name: str) -> dict[str, str]:
        lines = (split / name).read_text(encoding="utf-8").splitlines()
        return {id: value for id, value in (line.split(maxsplit=1) for line in lines)}

    def edit(self, split: Path, name: str, change: Callable[[dict[str, str]], object]) -> None:
        rows = self.read(split, name)
        change(rows)
        self.write(split, name, rows)

    def recording(self, index: int = 0) -> Path:
        """One of the training recordings."""
        return Path(list(self.read(self.train, "wav.scp").values())[index])


@pytest.fixture
def corpus(finished: Path, tmp_path: Path) -> Corpus:
    return Corpus(tmp_path / "corpus", next(finished.glob("voices-*")))


@pytest.fixture
def prepare(corpus: Corpus, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the recipe on the broken corpus up to a stage: ``prepare("lexicon", "max_skipped=0.2")``."""

    class Reached(Exception):
        pass

    def run_to(last: str, *overrides: str) -> Path:
        real = Stages.run

        def stop_after(self: Stages, name: str, work: Callable[[object], object], **arguments: object) -> None:
            real(self, name, work, **arguments)
            if name == last:
                raise Reached

        folder = tmp_path / "exp"
        source = f"corpus={{kind: kaldi, train: {corpus.train}, test: {corpus.test}}}"
        config = load_config(
            ExperimentConfig, tiny_recipe / "config.yaml", [f"exp={folder}", source, "max_skipped=0.1", *overrides]
        )
        with monkeypatch.context() as patch:
            patch.setattr(Stages, "run", stop_after)
            with pytest.raises(Reached):
                run_recipe(config)
        return folder

    return run_to


def refused(prepare, *overrides: str, error: type[LhucError] = CorpusError, stage: str = "corpus") -> str:
    """The message with which a run is refused: one line, and the stage is not taken for finished."""
    with pytest.raises(error) as caught:
        prepare(stage, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0, np.float32), SAMPLE_RATE, format="WAV")


def not_a_number(path: Path) -> None:
    samples = np.full(SAMPLE_RATE, np.nan, np.float32)
    soundfile.write(path, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")


def no_audio(path: Path) -> None:
    path.write_text("these are not samples", encoding="utf-8")


BAD_RECORDINGS = {
    truncated: "truncated",
    emptied: "empty",
    without_samples: "no samples",
    not_a_number: "NaN",
    no_audio: "not a WAV, FLAC, Ogg, MP3, AIFF, CAF, AU or NIST SPHERE recording",
    Path.unlink: "no such recording",
}


@pytest.mark.parametrize("spoil", BAD_RECORDINGS, ids=lambda spoil: spoil.__name__)
def test_one_bad_recording_is_skipped_listed_and_counted(
    spoil: Callable[[Path], None], corpus: Corpus, prepare, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(corpus.recording())
    with caplog.at_level(logging.WARNING, "lhuc_asr"):
        folder = prepare("corpus")
    warnings = [record.getMessage() for record in caplog.records]
    assert "skipped 1 of 36 utterances" in warnings
    (listed,) = [line for line in warnings if corpus.recording().name in line]
    assert BAD_RECORDINGS[spoil] in listed
    kept = [u.id for split in ("train", "heldout") for u in read_manifest(folder / "corpus" / f"{split}.jsonl")]
    assert len(kept) == 35
    assert corpus.recording().stem not in kept


@pytest.mark.parametrize("spoil", BAD_RECORDINGS, ids=lambda spoil: spoil.__name__)
def test_too_many_bad_recordings_stop_the_run(spoil: Callable[[Path], None], corpus: Corpus, prepare) -> None:
    for index in range(4):
        spoil(corpus.recording(index))
    message = refused(prepare)
    assert "4 of 36 utterances cannot be used, more than the 10.0% allowed (max_skipped)" in message
    assert BAD_RECORDINGS[spoil] in message
    assert corpus.recording().name in message


def test_a_transcript_without_audio_is_skipped(corpus: Corpus, prepare, caplog: pytest.LogCaptureFixture) -> None:
    corpus.edit(corpus.train, "text", lambda rows: rows.update({"1001-9-0000": "GO ON"}))
    prepare("corpus")
    assert any("1001-9-0000" in r.getMessage() and "no recording" in r.getMessage() for r in caplog.records)


def test_audio_without_a_transcript_is_skipped(corpus: Corpus, prepare, caplog: pytest.LogCaptureFixture) -> None:
    corpus.edit(corpus.train, "text", lambda rows: rows.pop("1001-1-0000"))
    prepare("corpus")
    assert any("1001-1-0000: no transcript" in record.getMessage() for record in caplog.records)


def test_an_id_that_comes_twice_is_refused(corpus: Corpus, prepare) -> None:
    with (corpus.train / "wav.scp").open("a", encoding="utf-8") as file:
        file.write(f"1001-1-0000 {corpus.recording(1)}\n")
    message = refused(prepare)
    assert "wav.scp:37: 1001-1-0000 appears twice" in message


def test_a_test_speaker_who_is_a_training_speaker_is_refused(corpus: Corpus, prepare) -> None:
    corpus.edit(corpus.test, "utt2spk", lambda rows: rows.update(dict.fromkeys(rows, "1002")))
    assert "1002; a test speaker must be unseen in training" in refused(prepare)


def test_too_many_heldout_speakers_are_refused(prepare) -> None:
    message = refused(prepare, "heldout_speakers=6")
    assert "6 training speakers, of which heldout_speakers=6" in message
    assert "lower heldout_speakers" in message


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("corpus={kind: an4, dir: /nowhere}", "corpus.dir: /nowhere: no such folder"),
        ("corpus={kind: librispeech, dir: /nowhere}", "corpus.dir: /nowhere: no such folder"),
        (
            "corpus={kind: kaldi, train: /nowhere, test: /else}",
            "corpus.train: /nowhere: no such folder; corpus.test: /else: no such folder",
        ),
        ("lm.text=[/nowhere]", "lm.text: /nowhere: no such file"),
        ("lm.text=[/etc]", "lm.text: /etc: is a folder, expected a file"),
        ("lexicon.path=/nowhere", "lexicon.path: /nowhere: no such file"),
        ("lexicon.path=/etc", "lexicon.path: /etc: is a folder, expected a file"),
        ("noise={dir: /nowhere, classes: [rain]}", "noise.dir: /nowhere: no such folder"),
        (f"noise={{dir: {__file__}, classes: [rain]}}", f"noise.dir: {__file__}: is a file, expected a folder"),
    ],
)
def test_a_missing_path_is_named_before_anything_is_read_or_written(
    option: str, fault: str, prepare, tmp_path: Path
) -> None:
    assert refused(prepare, option, error=ConfigError) == f"{fault}; correct the path in the recipe"
    assert [path.name for path in (tmp_path / "exp").iterdir()] == [".lock"]


def test_a_missing_path_leaves_the_finished_experiment_as_it_was(copied: Path, run) -> None:
    """Its ``config.yaml`` too, from which it is exported."""
    before = (copied / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="no such file"):
        run(copied, "lexicon.path=/nowhere")
    assert (copied / "config.yaml").read_bytes() == before


def test_a_corpus_without_its_own_lexicon_is_named_before_anything_is_read(prepare, tmp_path: Path) -> None:
    (tmp_path / "an4" / "etc").mkdir(parents=True)
    message = refused(prepare, f"corpus={{kind: an4, dir: {tmp_path / 'an4'}}}")
    assert message.startswith(f"{tmp_path}/an4/etc/an4.dic: no such file")
    assert [path.name for path in (tmp_path / "exp").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (None, "noise.tsv: no such file"),
        ("path\tclass\na.wav\tsea\n", "noise.tsv: no class rain; it has sea"),
        ("path\tclass\na.wav\train\n", "noise.tsv: clip of rain: "),
        ("path\tclass\nnoise.tsv\train\n", "noise class rain: 1 clips of 1 recordings, expected three"),
    ],
)
def test_noise_that_cannot_be_used_is_named_before_anything_is_read(
    table: str | None, fault: str, prepare, tmp_path: Path
) -> None:
    (tmp_path / "noise").mkdir()
    if table is not None:
        (tmp_path / "noise" / "noise.tsv").write_text(table, encoding="utf-8")
    assert fault in refused(prepare, f"noise={{dir: {tmp_path / 'noise'}, classes: [rain]}}")
    assert [path.name for path in (tmp_path / "exp").iterdir()] == [".lock"]


def test_a_word_without_pronunciation_is_an_error_where_asked(corpus: Corpus, prepare, lexicon: Path) -> None:
    message = refused(
        prepare, f"lexicon.path={lexicon}", "lexicon.unknown_words=error", error=LexiconError, stage="lexicon"
    )
    assert "THE" in message


def test_a_word_without_pronunciation_is_unknown_where_asked(prepare, lexicon: Path) -> None:
    folder = prepare("graph", f"lexicon.path={lexicon}", "lexicon.unknown_words=unk")
    words = {line.split()[0] for line in (folder / "lang" / "lexicon.txt").read_text(encoding="utf-8").splitlines()}
    assert "<unk>" in words
    assert "THE" not in words


def test_a_word_without_pronunciation_is_pronounced_by_default(prepare, lexicon: Path) -> None:
    folder = prepare("lexicon", f"lexicon.path={lexicon}")
    words = {line.split()[0] for line in (folder / "lang" / "lexicon.txt").read_text(encoding="utf-8").splitlines()}
    assert "THE" in words
    assert "<unk>" not in words


@pytest.fixture
def lexicon(finished: Path, tmp_path: Path) -> Path:
    """The experiment's lexicon without the word THE."""
    lines = (finished / "lang" / "lexicon.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "lexicon.txt"
    path.write_text("".join(line for line in lines if line.split()[0] != "THE"), encoding="utf-8")
    return path


def test_a_word_that_only_a_test_transcript_has_counts_as_an_error_and_stops_nothing(corpus: Corpus, prepare) -> None:
    """A speaker with one utterance, who says a word that nothing knows: the whole job works."""
    keep = next(id for id in corpus.read(corpus.test, "wav.scp") if id.startswith("2002"))
    for name in ("wav.scp", "utt2spk", "text"):
        rows = corpus.read(corpus.test, name)
        corpus.write(corpus.test, name, {id: v for id, v in rows.items() if id.startswith("2001") or id == keep})
    corpus.edit(corpus.test, "text", lambda rows: rows.update({keep: "XYLOPHONE"}))
    folder = prepare("lhuc over test")
    for name in ("si", "lhuc"):
        assert read_json(folder / "decode" / "test" / name / "wer.json")["speakers"]["2002"]["words"] == 1
    assert (folder / "speakers" / "lhuc" / "test" / "2002.safetensors").exists()


def lower(rows: dict[str, str]) -> None:
    rows.update({id: f"{text.lower()} don\u2019t" for id, text in rows.items()})


def test_transcripts_in_another_case_and_unicode_form_are_the_same_words(corpus: Corpus, prepare) -> None:
    for split in (corpus.train, corpus.test):
        corpus.edit(split, "text", lower)
        (split / "text").write_bytes(b"\xef\xbb\xbf" + (split / "text").read_bytes().replace(b"\n", b"\r\n"))
    folder = prepare("lexicon")
    lexicon = read_lexicon_folder(folder / "lang")
    assert {"THE", "DON'T"} < set(lexicon.words)
    for split in ("train", "heldout", "test"):
        said = {word for utterance in read_manifest(folder / "corpus" / f"{split}.jsonl") for word in utterance.words}
        assert "DON'T" in said
        assert not lexicon.missing(said) or split == "test"


@pytest.mark.parametrize("dictionary", [True, False])
def test_known_tags_are_trained_as_sounds_and_not_scored(
    corpus: Corpus, prepare, lexicon: Path, dictionary: bool
) -> None:
    for split in (corpus.train, corpus.test):
        corpus.edit(split, "text", lambda rows: rows.update({id: f"[noise] {text} <UNK>" for id, text in rows.items()}))
    options = [f"lexicon.path={lexicon}", "lexicon.unknown_words=unk"] if dictionary else []
    folder = prepare("lexicon" if dictionary else "si over test", *options)
    spelt = read_lexicon_folder(folder / "lang")
    assert spelt.pronunciations["<NOISE>"] == (("NSN",),)
    assert spelt.pronunciations["<unk>"] == (("SPN",),)
    assert spelt.phones.silence == ("SIL", "SPN", "NSN")
    if dictionary:
        return
    words = sum(len(text.split()) - 2 for text in corpus.read(corpus.test, "text").values())
    assert read_json(folder / "decode" / "test" / "si" / "wer.json")["words"] == words


def test_a_tag_of_the_lexicon_is_a_word_of_its_own(corpus: Corpus, prepare, lexicon: Path) -> None:
    corpus.edit(corpus.train, "text", lambda rows: rows.update({id: f"{text} <door>" for id, text in rows.items()}))
    assert "text:1: unknown tag '<DOOR>'" in refused(prepare, f"lexicon.path={lexicon}")
    lexicon.write_text(lexicon.read_text() + "<door> D AO\n")
    folder = prepare("lexicon", f"lexicon.path={lexicon}")
    assert read_lexicon_folder(folder / "lang").pronunciations["<DOOR>"] == (("D", "AO"),)


def test_a_test_set_outside_the_vocabulary_is_a_warning_before_features(corpus: Corpus, prepare, caplog) -> None:
    corpus.edit(corpus.test, "text", lambda rows: rows.update(dict.fromkeys(rows, "quokka zebra")))
    with caplog.at_level(logging.WARNING, "lhuc_asr"):
        prepare("perplexity")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "test: only 0 of 12 words (0.0 %) are in the vocabulary" in warning
    assert "such as QUOKKA ZEBRA" in warning


def test_test_speakers_without_a_word_are_refused(corpus: Corpus, prepare) -> None:
    corpus.edit(
        corpus.test,
        "text",
        lambda rows: rows.update({id: "[laughter]" for id in rows if id.startswith("2001")}),
    )
    assert "transcripts of noises and pauses without a word, of 1 speakers: 2001" in refused(prepare)


def test_a_language_model_in_place_of_a_text_is_named_before_any_recording_is_read(
    finished: Path, prepare, tmp_path: Path
) -> None:
    message = refused(prepare, f"lm.text=[{finished / 'lang' / 'lm.arpa'}]")
    assert "lm.arpa:1: a language model in the ARPA format, expected sentences" in message
    assert not (tmp_path / "exp" / "metrics.jsonl").exists()
