"""The lattices of sequence training from the machines of a cluster, each of some speakers, put together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.errors import LatticeError
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.file_jobs import Job
from lhuc_asr.base.fingerprint import files_below
from lhuc_asr.corpus.splits import HELDOUT, TRAIN
from lhuc_asr.features.store import gather
from lhuc_asr.hmm.aligner import check_unaligned
from lhuc_asr.hmm.alignment import UNALIGNED, write_alignment
from lhuc_asr.lang.lexicon_folder import LEXICON_FILE, PHONES_FILE
from lhuc_asr.nnet.denominator import DenominatorLattice
from lhuc_asr.nnet.lattice_store import LatticeStore, write_lattices
from lhuc_asr.pipeline.cluster_config import RayConfig
from lhuc_asr.pipeline.earlier_pass import SEARCH_FILE
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.language import GRAPH_FILES
from lhuc_asr.pipeline.parts import experiment_of, part_results, pdfs_in, places_in, plain_experiment
from lhuc_asr.pipeline.sequence_lattices import (
    LatticesOptions,
    lattice_files,
    own_speed,
    write_all_lattices,
    write_split,
)
from lhuc_asr.pipeline.transcripts import transcripts

_OPTIONS = TypeAdapter(LatticesOptions)
# Places in the folder of a job's results.
STORE, REFERENCES = "lattices", "references.ali"


def make_lattices(experiment: AlignedExperiment, start: str, folder: Path, options: LatticesOptions) -> None:
    """``write_all_lattices``, on the cluster if there is one; the same files, to the bit.

    The vectors of a network's training speakers are in one file of all utterances, so that a network that takes them
    is left to this machine.
    """
    if experiment.ray is None or options.network.voices is not None:
        write_all_lattices(experiment, start, folder, options)
        return
    for split in (TRAIN, HELDOUT):
        _on_cluster(experiment.ray, experiment, start, split, lattice_files(folder, split), options)


def _on_cluster(
    settings: RayConfig,
    experiment: AlignedExperiment,
    start: str,
    split: str,
    places: tuple[Path, Path],
    options: LatticesOptions,
) -> None:
    shared = places_in(experiment.folder.folder, _shared(experiment, start, options))
    # How many may fail is counted over all parts.
    of_parts = replace(options, max_unaligned=None, max_without_lattice=1.0)
    plain = plain_experiment(experiment) | {
        "start": start,
        "split": split,
        "options": _OPTIONS.dump_python(of_parts, mode="json"),
    }
    kinds = dict.fromkeys(("", options.network.features or ""))
    features = {kind: experiment.features(split, kind) for kind in kinds}
    aligned = experiment.aligned(experiment.alignment, split)

    def job(title: str, home: Path, part: Sequence[Utterance]) -> Job:
        there, names = ExperimentFolder(home), [utterance.id for utterance in part]
        write_manifest(there.manifest(split), part)
        (home / "features").mkdir()
        cut = {kind: gather(there.features(split, kind), [store], names) for kind, store in features.items()}
        place = there.alignment(experiment.alignment, split)
        place.parent.mkdir(parents=True)
        write_alignment(place, cut[""], {name: aligned[name] for name in names})
        return Job(title, lattices_of_part, plain, shared | places_in(home, files_below(home)))

    store, references = places
    wanted = own_speed(experiment, split, options.network).utterances
    table, title = features[options.network.features or ""], f"lattices of {start}, {split}"
    with part_results(settings, store.parent, title, experiment.utterances(split), job) as results:
        stores: dict[str, LatticeStore] = {}
        pdfs: dict[str, np.ndarray] = {}
        for part, made in results:
            own = LatticeStore(made / STORE)
            stores |= dict.fromkeys(own, own)
            names = [utterance.id for utterance in part]
            pdfs |= {name: each for name, each in pdfs_in(made / REFERENCES, names, table) if each[0] != UNALIGNED}
        _check(experiment, split, [each.id for each in wanted], stores.keys(), pdfs.keys(), options)

        def in_order() -> Iterator[tuple[str, DenominatorLattice]]:
            return ((each.id, stores[each.id][each.id]) for each in wanted if each.id in stores)

        write_lattices(store, in_order(), next(iter(stores.values())).pdf_count)
        write_alignment(references, table, pdfs)


def _shared(experiment: AlignedExperiment, start: str, options: LatticesOptions) -> Iterator[Path]:
    """The files that the lattices of any speakers need."""
    folder = experiment.folder
    yield folder.network(start)
    yield folder.topology(experiment.alignment)
    yield folder.decode(HELDOUT, options.first.searched_as) / SEARCH_FILE
    yield from (folder.lang / name for name in (LEXICON_FILE, PHONES_FILE))
    yield from (experiment.graph(TRAIN, options.lm_order) / name for name in GRAPH_FILES)


def _check(
    experiment: AlignedExperiment,
    split: str,
    names: Sequence[str],
    with_lattice: Collection[str],
    aligned: Collection[str],
    options: LatticesOptions,
) -> None:
    """Refuse too many recordings without a lattice, or references that fail to align."""
    lexicon, words = experiment.lexicon, transcripts(experiment, split)
    known = [name for name in names if words[name] and not lexicon.missing(words[name])]
    if known and options.max_unaligned is not None:
        check_unaligned([name for name in known if name not in aligned], len(aligned), options.max_unaligned)
    without = [name for name in names if name not in with_lattice]
    if len(without) > options.max_without_lattice * len(names):
        raise LatticeError(
            f"{len(without)} of {len(names)} utterances have no lattice (limit {options.max_without_lattice:.0%}); the "
            f"first: {without[0]}; the log says why"
        )


# On a machine of the cluster.


def lattices_of_part(inputs: Path, results: Path, options: Mapping[str, Any]) -> None:
    """The lattices of some speakers, as a job over files.

    Args:
        inputs: Folder that is laid out like an experiment's, with what the lattices of these speakers need.
        results: Folder for the store, which becomes ``STORE``, and the alignment of the references, ``REFERENCES``.
        options: ``start``, ``split``, ``options``, and attributes of the experiment.

    Raises:
        LhucError: What making the lattices raises.
    """
    own = _OPTIONS.validate_python(options["options"])
    places = results / STORE, results / REFERENCES
    write_split(experiment_of(inputs, options), options["start"], options["split"], places, own)
