"""The parsers of outside files: how whole inputs are made, what is changed in them, and how they are read.

A parser reads as far as its caller would: a model transcribes, a ranker predicts, an experiment is exported.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutations import mutate_bytes, mutate_header, mutate_json, mutate_tensors, mutate_text
from seeds import RATE, SCHEMA, blocks

Change = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Parser:
    """A reader of outside files.

    Attributes:
        seeds: Sub-folder of the whole inputs.
        change: Changes files in a copy of that folder; called with the copy and a source of chance.
        read: Reads the folder; ends well or raises.
    """

    seeds: str
    change: Callable[[Path, random.Random], None]
    read: Callable[[Path], object]


def replace(path: Path, content: bytes) -> None:
    """Write a file anew; it may be a link to a whole input's."""
    path.unlink()
    path.write_bytes(content)


def change_one_of(pattern: str, change: Change) -> Callable[[Path, random.Random], None]:
    """A change of one of the files that match a pattern."""

    def apply(folder: Path, rng: random.Random) -> None:
        path = rng.choice(sorted(path for path in folder.glob(pattern) if path.is_file()))
        if path.suffix == ".gz" and rng.random() < 0.7:
            replace(path, gzip.compress(change(gzip.decompress(path.read_bytes()), rng)))
        else:
            replace(path, change(path.read_bytes(), rng))

    return apply


def change_described(description: str) -> Callable[[Path, random.Random], None]:
    """A change of a file of a folder with hashes, which mostly are made to fit again."""

    def apply(folder: Path, rng: random.Random) -> None:
        tree = json.loads((folder / description).read_bytes())
        if rng.random() < 0.25:
            replace(folder / description, mutate_json((folder / description).read_bytes(), rng))
            return
        for name in rng.sample(sorted(tree["sha256"]), rng.choice((1, 1, 1, 2))):
            path = folder / tree.get("files", {}).get(name, name)
            replace(path, change_of(path)(path.read_bytes(), rng))
            if rng.random() < 0.9:
                tree["sha256"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
        replace(folder / description, json.dumps(tree).encode())

    return apply


def change_of(path: Path) -> Change:
    """The change that suits a file."""
    changes: dict[str, Change] = {".json": mutate_json, ".jsonl": mutate_json, ".safetensors": mutate_tensors}
    return changes.get(path.suffix, mutate_text if path.suffix in (".txt", ".arpa", ".yaml", ".csv") else mutate_bytes)


def change_experiment(folder: Path, rng: random.Random) -> None:
    """A change of any file of an experiment; hashes and keys stay as they are, or are changed too."""
    if rng.random() < 0.3:
        change_described("model.json")(folder, rng)
        return
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".flac", ".png", ".wav")
    )
    path = rng.choice(files)
    replace(path, change_of(path)(path.read_bytes(), rng))


def change_audio(folder: Path, rng: random.Random) -> None:
    """A change of one recording, mostly of its header; the others are left out."""
    paths = sorted(folder.iterdir())
    chosen = rng.choice(paths)
    for path in paths:
        if path != chosen:
            path.unlink()
    change = mutate_header if rng.random() < 0.7 else mutate_bytes
    replace(chosen, change(chosen.read_bytes(), rng))


def read_audio_file(folder: Path) -> None:
    """A recording: header, samples at another rate, levels; the samples are usable."""
    from lhuc_asr.audio.formats import probe
    from lhuc_asr.audio.levels import levels
    from lhuc_asr.audio.recording import read_audio
    from lhuc_asr.audio.utterance import Utterance

    (path,) = folder.iterdir()
    info = probe(path)
    if info.seconds > 600:
        return
    samples = read_audio(Utterance("id", "speaker", "", path, 0.0, info.seconds, ""), RATE)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()
    assert np.abs(samples).max(initial=0.0) <= 1
    assert np.isfinite(levels(path).power).all()


def read_speakers(folder: Path) -> None:
    from lhuc_asr.lhuc.archive import SpeakerArchive
    from lhuc_asr.recognizer.speaker_file import SpeakerFile

    for path in sorted(folder.glob("*.safetensors")):
        SpeakerFile.load(path).spreads()
    archive = SpeakerArchive(folder / "all.archive")
    for name in list(archive):
        archive.state(name)


def read_extractor(folder: Path) -> None:
    """The i-vector extractor, and the vector of some frames."""
    import torch

    from lhuc_asr.hmm.ivector import IvectorExtractor, VoiceStatistics

    extractor = IvectorExtractor.load(folder / "extractor.safetensors")
    frames = torch.randn(30, extractor.background.dimension, generator=torch.Generator().manual_seed(1))
    assert extractor.vectors(VoiceStatistics.of(extractor.background, frames)).shape == (1, extractor.dimension)


def read_speaker_in_model(folder: Path) -> None:
    _recognizer().load_speaker(folder / "alice.safetensors")


def _recognizer() -> Any:
    """The whole model beside the speakers, loaded once in a process."""
    from lhuc_asr.recognizer.recognizer import load

    global _loaded
    if _loaded is None:
        _loaded = load(Path(os.environ["FUZZ_MODEL"]))
    return _loaded


_loaded: Any = None


def read_model(folder: Path) -> None:
    from lhuc_asr.recognizer.recognizer import load

    recognizer = load(folder)
    recognizer.transcribe([folder / "talk.wav"])
    recognizer.adapt([folder / "talk.wav"], "alice")


def read_experiment(folder: Path) -> None:
    """What ``info``, ``export`` and ``benchmark`` read of an experiment."""
    from lhuc_asr.pipeline.experiment import read_experiment
    from lhuc_asr.pipeline.export import export
    from lhuc_asr.pipeline.run import run_recipe
    from lhuc_asr.recognizer.recognizer import load

    load(folder).transcribe([folder / "talk.wav"])
    export(folder, folder / "exported")
    config, _ = read_experiment(folder)
    run_recipe(config.model_copy(update={"exp": folder}))


def read_arpa_file(folder: Path) -> None:
    from lhuc_asr.lang.arpa import read_arpa, write_arpa

    write_arpa(folder / "again.arpa", read_arpa(folder / "lm.arpa"))


def read_lattice_file(folder: Path) -> None:
    from lhuc_asr.decode.lattice_file import read_lattices, write_lattices
    from lhuc_asr.decode.minimum_risk import least_risk
    from lhuc_asr.decode.n_best import best_paths

    words = ("<eps>", "ONE", "TWO", "THREE")
    lattices = list(read_lattices(folder / "lat.txt", words, acoustic_scale=0.1))
    for utterance, lattice in lattices:
        best_paths(lattice, 10)
        least_risk(utterance, lattice, words)
    write_lattices(folder / "again.txt", lattices, words)


def read_lexica(folder: Path) -> None:
    from lhuc_asr.lang.lexicon import disambiguate, read_lexicon

    for path in sorted(folder.iterdir()):
        disambiguate(read_lexicon(path))


def read_texts(folder: Path) -> None:
    from lhuc_asr.lang.sentences import read_sentences
    from lhuc_asr.recognizer.transcript import read_transcripts

    for path in sorted(folder.iterdir()):
        list(read_sentences(path))
    read_transcripts(folder / "transcripts.txt")


def read_kaldi(folder: Path) -> None:
    from lhuc_asr.corpus.kaldi_dir import read_kaldi_dir

    _validated(read_kaldi_dir(folder))


def read_libri(folder: Path) -> None:
    from lhuc_asr.corpus.librispeech import read_librispeech, read_speakers_table

    read_speakers_table(folder)
    _validated(read_librispeech(folder, ["dev-clean"]))


def _validated(reading: Any) -> None:
    from lhuc_asr.corpus.validate import validate

    validate(reading, max_skipped=0.9)


def read_yaml(folder: Path) -> None:
    from lhuc_asr.base.config import load_config
    from lhuc_asr.pipeline.config import ExperimentConfig
    from lhuc_asr.pipeline.plan import passes_of

    overrides = (folder / "overrides.txt").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    passes_of(load_config(ExperimentConfig, folder / "config.yaml", overrides))


def read_examples(folder: Path) -> None:
    """Tables of examples, by the schema of the ranker."""
    from lhuc_asr.ppnet.examples import Examples
    from lhuc_asr.ppnet.schema import Schema
    from lhuc_asr.ppnet.vocabulary import Vocabularies

    schema = Schema.model_validate(SCHEMA)
    for path in sorted(folder.iterdir()):
        vocabularies = Vocabularies.fit(blocks(path, schema), schema)
        for _ in Examples([path], schema, vocabularies).batches(64):
            pass


def read_ranker(folder: Path) -> None:
    import torch

    from lhuc_asr.ppnet.prediction import write_predictions
    from lhuc_asr.ppnet.ranker_folder import load_ranker

    write_predictions(load_ranker(folder), [folder / "test.csv"], folder / "out.csv", torch.device("cpu"))


def _all(*patterns_and_changes: tuple[str, Change]) -> Callable[[Path, random.Random], None]:
    """A change of a file of one of several patterns."""
    changes = [change_one_of(pattern, change) for pattern, change in patterns_and_changes]
    return lambda folder, rng: rng.choice(changes)(folder, rng)


PARSERS: dict[str, Parser] = {
    "audio": Parser("audio", change_audio, read_audio_file),
    "arpa": Parser("arpa", change_one_of("lm.arpa", mutate_text), read_arpa_file),
    "lattices": Parser("lattices", change_one_of("lat.txt", mutate_text), read_lattice_file),
    "lexica": Parser("lexica", change_one_of("*", mutate_text), read_lexica),
    "texts": Parser("texts", change_one_of("*", mutate_text), read_texts),
    "kaldi": Parser("kaldi", _all(("*", mutate_text), ("wav/*", mutate_header)), read_kaldi),
    "libri": Parser("libri", _all(("**/*.[Tt]*", mutate_text), ("**/*.flac", mutate_header)), read_libri),
    "yaml": Parser("yaml", change_one_of("*", mutate_text), read_yaml),
    "examples": Parser("examples", _all(("*.csv", mutate_text), ("*.parquet", mutate_bytes)), read_examples),
    "ranker": Parser("ranker", change_described("ranker.json"), read_ranker),
    "speakers": Parser("speakers", change_one_of("*", mutate_tensors), read_speakers),
    "speaker in model": Parser("speakers", change_one_of("alice*", mutate_tensors), read_speaker_in_model),
    "extractor": Parser("extractor", change_one_of("*", mutate_tensors), read_extractor),
    "model": Parser("model", change_described("model.json"), read_model),
    "experiment": Parser("experiment", change_experiment, read_experiment),
}


def names() -> Sequence[str]:
    """Names of the parsers."""
    return tuple(PARSERS)
