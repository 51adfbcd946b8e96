"""The files of an experiment that a pass over some speakers reads: some as they are, some cut to these speakers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from lhuc_asr.adapt.controls import Borrowed
from lhuc_asr.audio.utterance import Utterance, write_manifest
from lhuc_asr.base.experiment_folder import ExperimentFolder
from lhuc_asr.base.fingerprint import files_below
from lhuc_asr.corpus.splits import HELDOUT
from lhuc_asr.features.store import gather
from lhuc_asr.hmm.alignment import Alignment, write_alignment
from lhuc_asr.lang.language_model import ARPA_FILE
from lhuc_asr.lhuc.speaker import SPEAKER_INDEPENDENT, speaker_path
from lhuc_asr.pipeline.acoustic_models import ModelPlace
from lhuc_asr.pipeline.earlier_pass import ALIGNMENT_FILE, SEARCH_FILE, sets_of
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.language import GRAPH_FILES, HISTORIES_FOLDER
from lhuc_asr.pipeline.parts import places_in
from lhuc_asr.pipeline.resolved_pass import Adaptation, Pass, Reuse


def whole_files(experiment: AlignedExperiment, split: str, plans: Sequence[Pass]) -> dict[str, Path]:
    """The files that passes over any speakers of a split read as they are, by their places in the experiment's folder.

    Args:
        experiment: The experiment, with the states of the passes.
        split: The split.
        plans: The passes.
    """
    read: list[Path] = [experiment.folder.topology(experiment.alignment)]
    for plan in plans:
        read += _read_by(experiment, split, plan)
    for plan in (*plans, *earlier_passes(plans)):
        read += _read_of_model(experiment, plan)
    files = (file for path in read for file in (files_below(path) if path.is_dir() else [path]))
    return places_in(experiment.folder.folder, files)


def _read_by(experiment: AlignedExperiment, split: str, plan: Pass) -> Iterator[Path]:
    """What a pass itself reads: graphs, language models, and what its method has learned."""
    orders = {None, plan.lm_order}
    yield from (experiment.graph(split, order) / name for order in orders for name in GRAPH_FILES)
    if plan.output is not None and plan.output.language_model is not None:
        yield experiment.language_model(split) / ARPA_FILE
        yield experiment.language_model(split, plan.output.language_model) / HISTORIES_FOLDER
    if plan.preparation is not None:
        yield experiment.folder.prepared(plan.preparation.name)
    if isinstance(plan.adaptation, Adaptation) and plan.adaptation.method.uses_gaussians:
        yield from _gaussians(experiment)


def _read_of_model(experiment: AlignedExperiment, plan: Pass) -> Iterator[Path]:
    """The model of a pass, and its tuned search."""
    yield experiment.folder.decode(HELDOUT, plan.searched_as) / SEARCH_FILE
    if plan.place is not None and plan.place.gaussian:
        of_rung = experiment.at(plan.network)
        yield experiment.folder.topology(of_rung.alignment)
        yield from _gaussians(of_rung)
    else:
        yield experiment.folder.network(plan.network)


def _gaussians(experiment: AlignedExperiment) -> Iterator[Path]:
    model = experiment.alignment_model
    yield from (path for path in (model.adapted, model.unadapted) if path is not None)


class SpeakersFiles:
    """What passes read of single speakers.

    Args:
        experiment: The experiment, with the states of the passes.
        split: The split.
        plans: The passes; they differ in their outputs alone.
        borrowed: Parameters of others for each set; None for passes that borrow nothing. They are written as if
            the pass that lends them had estimated them.
    """

    def __init__(
        self, experiment: AlignedExperiment, split: str, plans: Sequence[Pass], borrowed: Borrowed | None = None
    ) -> None:
        self._experiment, self._split, self._borrowed = experiment, split, borrowed
        self._earlier = earlier_passes(plans)
        self._features = {kind: experiment.features(split, kind) for kind in map(_kind, (*plans, *self._earlier))}
        self._pdfs = {plan.name: self._alignment(plan) for plan in self._earlier}
        # The names of the sets of passes that estimate, by their speakers: each set has a file.
        self._sets = {plan.name: self._names(plan) for plan in self._earlier if plan.estimates}

    def write(self, home: Path, utterances: Sequence[Utterance]) -> dict[str, Path]:
        """Write what passes over some speakers read of them into a folder that is laid out like the experiment's.

        Args:
            home: The folder.
            utterances: All utterances of these speakers.

        Returns:
            All files that they read of these speakers, by their places; some are those of the experiment.
        """
        folder, split, names = ExperimentFolder(home), self._split, [utterance.id for utterance in utterances]
        write_manifest(folder.manifest(split), utterances)
        cut = {}
        for kind, store in self._features.items():
            place = folder.features(split, kind)
            place.parent.mkdir(exist_ok=True)
            cut[kind] = gather(place, [store], names)
        for plan in self._earlier:
            place, pdfs = folder.decode(split, plan.name) / ALIGNMENT_FILE, self._pdfs[plan.name]
            place.parent.mkdir(parents=True)
            write_alignment(place, cut[_kind(plan)], {name: pdfs[name] for name in names})
        speakers = {utterance.speaker for utterance in utterances}
        if self._borrowed is None:
            parameters = self._own_parameters(speakers)
        else:
            self._write_borrowed(folder, self._borrowed, speakers)
            parameters = {}
        return places_in(home, files_below(home)) | parameters

    def _alignment(self, plan: Pass) -> Alignment:
        path = self._experiment.folder.decode(self._split, plan.name) / ALIGNMENT_FILE
        return Alignment(path, self._features[_kind(plan)], self._experiment.at(plan.states).topology.pdf_count)

    def _names(self, plan: Pass) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for each in sets_of(self._experiment, self._split, plan, self._features[_kind(plan)]):
            names.setdefault(each.speaker, []).append(each.name)
        return names

    def _own_parameters(self, speakers: Collection[str]) -> dict[str, Path]:
        """The files of parameters that earlier passes estimated, by their places."""
        files: list[Path] = []
        for name, sets in self._sets.items():
            folder = self._experiment.folder.speakers(self._split, name)
            row_0 = speaker_path(folder, SPEAKER_INDEPENDENT)
            files += [speaker_path(folder, each) for speaker in speakers for each in sets[speaker]]
            files += [row_0] if row_0.exists() else []
        return places_in(self._experiment.folder.folder, files)

    def _write_borrowed(self, folder: ExperimentFolder, borrowed: Borrowed, speakers: Collection[str]) -> None:
        for name, sets in self._sets.items():
            place = folder.speakers(self._split, name)
            place.mkdir(parents=True)
            for each in (each for speaker in speakers for each in sets[speaker]):
                borrowed.speakers[each].save_speaker(each, speaker_path(place, each), {})


def earlier_passes(plans: Iterable[Pass]) -> list[Pass]:
    """The passes whose results passes read, and those whose parameters they have."""
    earlier: dict[str, Pass] = {}
    for plan in plans:
        for each in plan.needed:
            earlier[each.name] = each
            if isinstance(each.adaptation, Reuse):
                earlier[each.adaptation.source.name] = each.adaptation.source
    return list(earlier.values())


def _kind(plan: Pass) -> str:
    return (plan.place or ModelPlace()).features
