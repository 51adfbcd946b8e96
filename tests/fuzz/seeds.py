"""Whole inputs of every parser, from which the changed ones are made."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from lhuc_asr.audio.utterance import read_manifest

RATE = 16_000
WORDS = ("ONE", "TWO", "THREE", "FOUR")
# Formats of recordings by the ending of a file: libsndfile's format and encoding.
AUDIO = {
    "wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "gsm.wav": ("WAV", "GSM610"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "ulaw.wav": ("WAV", "ULAW"), "wavex.wav": ("WAVEX", "PCM_24"), "rf64": ("RF64", "PCM_16"), "w64": ("W64", "PCM_16"),
    "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"), "caf": ("CAF", "PCM_16"), "au": ("AU", "PCM_16"), "sph": ("NIST", "PCM_16"),
}  # fmt: skip


SCHEMA: dict[str, Any] = {
    "features": [
        {"name": "user", "kind": "id", "group": "prior", "embedding": 2},
        {"name": "age", "kind": "number", "embedding": 2},
        {"name": "genres", "kind": "multi", "embedding": 2},
    ],
    "labels": ["click"],
    "user": "user",
}


def write_seeds(seeds: Path, experiment: Path, model: Path) -> None:
    """Write whole inputs for every parser.

    Args:
        seeds: Folder to make.
        experiment: A finished experiment.
        model: Its exported model.
    """
    rng = np.random.default_rng(5)
    _write_texts(seeds)
    _write_audio(seeds / "audio", rng)
    _write_tables(seeds, rng)
    shutil.copytree(experiment, seeds / "experiment")
    shutil.copytree(model, seeds / "model")
    shutil.copy(read_manifest(experiment / "corpus" / "test.jsonl")[0].audio, seeds / "model" / "talk.wav")
    shutil.copy(seeds / "model" / "talk.wav", seeds / "experiment" / "talk.wav")
    _write_speakers(seeds / "speakers", model, seeds / "model" / "talk.wav")
    _write_extractor(seeds / "extractor")
    _write_ranker(seeds / "ranker", seeds / "examples" / "train.csv")


def blocks(path: Path, schema: Any) -> Any:
    """A table's rows, in blocks."""
    from lhuc_asr.ppnet.reader import Reader

    return Reader([path], schema).blocks(64)


def _write_texts(seeds: Path) -> None:
    for name in ("arpa", "lattices", "lexica", "texts", "yaml"):
        (seeds / name).mkdir(parents=True)
    (seeds / "arpa" / "lm.arpa").write_text(
        "\\data\\\nngram 1=5\nngram 2=3\n\n\\1-grams:\n-99\t<s>\t-0.3\n-1.0\t</s>\n-0.7\tONE\t-0.2\n-0.8\tTWO\t-0.1\n"
        "-1.2\tTHREE\n\n\\2-grams:\n-0.4\t<s> ONE\n-0.5\tONE TWO\n-0.3\tTWO </s>\n\n\\end\\\n"
    )
    (seeds / "lattices" / "lat.txt").write_text(
        "a-1\n0 1 ONE 1.5,-2.25,3_4\n0 2 TWO 0.5,4,5\n1 0.25,0.0,1\n2 3 THREE -1,8,1_1\n3 0.75,0,\n\n"
        "a-2\n0 0.5,12.5,1_1_2\n0 1 TWO 0,1e1,2_2\n1 2 ONE 1,1,1\n2 0,0,\n\n"
    )
    lexicon = "<UNK> SPN\nONE W AH1 N\nTWO T UW1\nTHREE TH R IY1\nFOUR F AO1 R\nTHREE(2) TH R IY0\n"
    (seeds / "lexica" / "words.txt").write_text(lexicon)
    (seeds / "lexica" / "words.dict.gz").write_bytes(gzip.compress(lexicon.encode()))
    (seeds / "texts" / "lm.txt").write_text("one two three\nDon't look b\u00e4ck\n\nfour \u2019tis one\n")
    (seeds / "texts" / "transcripts.txt").write_text("a one two\nb three\nc\n")
    recipe = Path(__file__).parents[2] / "recipes" / "an4" / "config.yaml"
    shutil.copy(recipe, seeds / "yaml" / "config.yaml")
    (seeds / "yaml" / "overrides.txt").write_text("seed=3\nlhuc.sweeps=2\nlm.text=[a.txt, b.txt]\nexp=exp/run #2\n")


def _write_audio(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir()
    time = np.arange(RATE // 4) / RATE
    samples = 0.3 * np.sin(2 * np.pi * 300 * time) + 0.01 * rng.standard_normal(len(time))
    for ending, (form, encoding) in AUDIO.items():
        soundfile.write(folder / f"talk.{ending}", samples, RATE, encoding, format=form)


def _write_tables(seeds: Path, rng: np.random.Generator) -> None:
    """A Kaldi directory, a subset of LibriSpeech, and a table of examples in both formats."""
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    kaldi, libri, examples = seeds / "kaldi", seeds / "libri" / "LibriSpeech", seeds / "examples"
    for folder in (kaldi / "wav", examples):
        folder.mkdir(parents=True)
    spoken = {f"s{number % 2}-{number}": " ".join(rng.choice(WORDS, 3)) for number in range(6)}
    for id in spoken:
        soundfile.write(kaldi / "wav" / f"{id}.wav", 0.1 * rng.standard_normal(RATE // 2), RATE)
    tables = {
        "wav.scp": [f"{id} wav/{id}.wav" for id in spoken],
        "segments": [f"{id} {id} 0.00 0.40" for id in spoken],
        "text": [f"{id} {text}" for id, text in spoken.items()],
        "utt2spk": [f"{id} {id[:2]}" for id in spoken],
        "utt2env": [f"{id} room" for id in spoken],
    }
    for name, lines in tables.items():
        (kaldi / name).write_text("\n".join(lines) + "\n")
    for reader in ("84", "174"):
        chapter = libri / "dev-clean" / reader / "1"
        chapter.mkdir(parents=True)
        for number in range(2):
            samples = 0.1 * rng.standard_normal(RATE // 2)
            soundfile.write(chapter / f"{reader}-1-000{number}.flac", samples, RATE)
        (chapter / f"{reader}-1.trans.txt").write_text(f"{reader}-1-0000 ONE TWO\n{reader}-1-0001 THREE\n")
    (libri / "SPEAKERS.TXT").write_text(
        ";ID |SEX| SUBSET |MINUTES| NAME\n84 | F | dev-clean | 8.02 | Christie Nowak\n174 | M | dev-clean | 8.04 | P\n"
    )
    table = pa.table({
        "user": rng.integers(1, 6, 40), "age": rng.normal(30, 5, 40).round(2),
        "genres": [f"{rng.choice(WORDS)}|{rng.choice(WORDS)}" for _ in range(40)], "click": rng.integers(0, 2, 40),
    })  # fmt: skip
    pacsv.write_csv(table, examples / "train.csv")
    pq.write_table(table, examples / "train.parquet")


def _write_speakers(folder: Path, model: Path, talk: Path) -> None:
    from lhuc_asr.lhuc.archive import write_archive
    from lhuc_asr.lhuc.speaker import SpeakerState
    from lhuc_asr.recognizer.recognizer import load

    folder.mkdir()
    load(model).adapt([talk], "alice").save(folder / "alice.safetensors")
    write_archive(folder / "all.archive", [SpeakerState.load(folder / "alice.safetensors")])


def _write_extractor(folder: Path) -> None:
    import torch

    from lhuc_asr.hmm.gmm import DiagonalGmm
    from lhuc_asr.hmm.ivector import ExtractorConfig, IvectorExtractor

    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    mean, variance = torch.randn(4, 5, generator=generator), 0.5 + torch.rand(4, 5, generator=generator)
    background = DiagonalGmm(torch.zeros(4, dtype=torch.int64), torch.full((4,), 0.25), mean, variance, 1)
    IvectorExtractor.random(background, ExtractorConfig(dimension=2), seed=1).save(folder / "extractor.safetensors")


def _write_ranker(folder: Path, table: Path) -> None:
    import torch

    from lhuc_asr.base.config import parse_config
    from lhuc_asr.ppnet.model import build
    from lhuc_asr.ppnet.ranker_folder import Ranker, save_ranker
    from lhuc_asr.ppnet.recommender import RecommenderConfig
    from lhuc_asr.ppnet.schema import Schema
    from lhuc_asr.ppnet.vocabulary import Vocabularies

    schema = Schema.model_validate(SCHEMA)
    vocabularies = Vocabularies.fit(blocks(table, schema), schema)
    tree = {
        "name": "small", "data": {"kind": "files", "train": [str(table)], "valid": [str(table)], "test": [str(table)]},
        "examples": SCHEMA, "models": {"ppnet": {"kind": "ppnet", "hidden_units": [4]}}, "baseline": "ppnet",
        "seeds": [1],
    }  # fmt: skip
    config = parse_config(RecommenderConfig, tree, "seeds")
    network = build(config.models["ppnet"], schema, vocabularies.rows, torch.Generator().manual_seed(1))
    save_ranker(folder, Ranker(network.eval(), vocabularies))
    shutil.copy(table, folder / "test.csv")
