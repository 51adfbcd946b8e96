"""A model's files in memory, checked to belong together, and the loop of a pass over a person's speech with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.adapt.adaptation_sets import AdaptationSet, DataConfig, adaptation_sets
from lhuc_asr.adapt.gaussian_model import gaussian_model
from lhuc_asr.adapt.speaker_data import AlignmentModel
from lhuc_asr.adapt.transformed import ChangedFeatures
from lhuc_asr.adapt.two_pass import TwoPass
from lhuc_asr.base.errors import ExperimentError, ModelMismatchError
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.features.store import FeatureTable
from lhuc_asr.hmm import topology
from lhuc_asr.hmm.feature_space import FeatureSpace, load_feature_space
from lhuc_asr.hmm.gaussian_features import FeaturesInSpace
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.lang.lexicon import Lexicon, WordTable
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.lang.tags import spoken_words, tags_of
from lhuc_asr.lhuc.identity import is_model
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.recognizer.model_folder import ModelDescription, ModelFiles
from lhuc_asr.recognizer.pass_description import PassDescription
from lhuc_asr.recognizer.speaker import Speaker, check_changes, load_speaker
from lhuc_asr.recognizer.speaker_file import held
from lhuc_asr.recognizer.speaker_files import speaker_file
from lhuc_asr.recognizer.speech import Speech
from lhuc_asr.recognizer.transcript import recording_name


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory; nothing in it changes.

    Attributes:
        description: Description of the model.
        files: Paths of the model's files.
        models: The acoustic models of the passes, by the networks' names; that of None is the Gaussian mixtures.
        mixtures: The files of the Gaussian mixtures.
        space: The space of the Gaussians' features; None if no pass has features in it.
        topology: States of the phones.
        lexicon: Pronunciations.
        pool: Pool that searches the decoding graph.

    Raises:
        ExperimentError: The files are each sound, but of different models.
    """

    description: ModelDescription
    files: ModelFiles
    models: Mapping[str | None, AcousticModel]
    mixtures: AlignmentModel
    space: FeatureSpace | None
    topology: ContextDependency
    lexicon: Lexicon
    pool: SearchPool

    @classmethod
    def read(cls, description: ModelDescription, files: ModelFiles, device: torch.device) -> LoadedModel:
        """Read the files of a model, the networks to a device; Gaussians and searches stay in this process."""
        states = topology.load(files.topology)
        mixtures = files.alignment_model(states.pdf_count)
        models: dict[str | None, AcousticModel] = {}
        space = None
        for each in description.passes:
            if each.network is None:
                models[None] = gaussian_model(mixtures)
            elif each.network not in models:
                models[each.network] = load_model(files.network(each.network)).requires_grad_(False).to(device)
            if each.in_space and files.space is not None:
                space = load_feature_space(files.space, each.features.dimension)
        lexicon, pool = read_lexicon_folder(files.lang), SearchPool(files.lang, processes=0)
        return cls(description, files, models, mixtures, space, states, lexicon, pool)

    def __post_init__(self) -> None:
        if (problem := self._problem()) is not None:
            raise ExperimentError(
                f"{self.files.topology.parent}: its files are of different models: {problem}; copy the folder again"
            )

    def _problem(self) -> str | None:
        """What does not fit together; None if all does."""
        states, graph = self.topology, self.pool.graph
        for each in self.description.passes:
            model, dimension = self.models[each.network], self._dimension(each)
            noun = "a network" if each.network else "Gaussian mixtures"
            if model.feature_dimension != dimension:
                return f"features of {dimension}, {noun} of {model.feature_dimension}"
            if not model.pdf_count == states.pdf_count == graph.pdf_count:
                return f"{noun} of {model.pdf_count} pdfs, states of {states.pdf_count}, a graph of {graph.pdf_count}"
        if self.lexicon.phones != states.phones or graph.context_width != states.context_width:
            return "a lexicon or a graph of other phones than the states'"
        if not is_model(self.description.network, self.network):
            return "the description is of another network, and so would be the speakers' files"
        if strange := set(graph.words) - set(WordTable(self.lexicon.words).symbols):
            return f"the graph's word {min(strange)!r} is not in the lexicon"
        return None

    def _dimension(self, plan: PassDescription) -> int:
        return self.space.dimension if plan.in_space and self.space is not None else plan.features.dimension

    @property
    def network(self) -> AcousticModel:
        """The acoustic model that is adapted to speakers."""
        return self.models[self.description.with_speaker.network]

    @property
    def speakers_hold(self) -> str:
        """What the file of a speaker who is adapted to holds, in a word or two."""
        method = self.description.with_speaker.method
        if method is None:
            return ""
        under = None if method.on is None else self.description.named(method.on).method
        speakers = None if under is None else under.speakers
        below = speakers.below if speakers is not None and issubclass(speakers, ChangedFeatures) else None
        return held(method.speakers.format, below)

    @property
    def own_tags(self) -> frozenset[str]:
        """Tags in transcripts that the lexicon lists."""
        return tags_of(self.lexicon.words)

    def spelled(self, transcripts: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """The words of each recording as the lexicon spells them."""
        return {
            recording_name(name): spoken_words(
                words if isinstance(words, str) else " ".join(words), f"transcript of {name!r}", self.own_tags
            )
            for name, words in transcripts.items()
        }

    def person(self, speaker: Speaker | str | Path | None) -> Speaker | None:
        """The person of a file or of a name, or the given one if they belong to this network.

        Raises:
            CheckpointError: The file is missing or damaged.
            ModelMismatchError: The person belongs to another network, or to another method on it.
            SpeakerError: No speaker's file has that name.
        """
        if isinstance(speaker, str | Path):
            return load_speaker(speaker_file(speaker), self.network, self.description)
        if speaker is not None and not is_model(speaker.network, self.network):
            raise ModelMismatchError(
                f"speaker {speaker.name!r} was adapted on the model {speaker.network[:12]}, this one is "
                f"{self.description.network[:12]}; adapt to the speaker with this model"
            )
        if speaker is not None:
            check_changes(speaker.adapted, self.description, f"speaker {speaker.name!r}")
        return speaker

    def loop(self, plan: PassDescription, speech: Speech) -> TwoPass:
        """The two-pass loop of a pass over the pieces of some persons' speech."""
        pieces = {piece.id: piece for piece in speech.pieces}
        features = speech.features[plan.features]
        if plan.in_space and self.space is not None:
            features = _moved(features, self.space)
        return TwoPass(self.models[plan.network], features, self.topology.silence_pdfs, pieces, self.mixtures)

    def sets(self, features: FeatureTable) -> list[AdaptationSet]:
        """One adaptation set for each person: all pieces, to estimate on in an order chosen by the seed, and to decode.

        The order does not depend on the other persons.
        """
        return self._sets(features, DataConfig())

    def halves(self, features: FeatureTable) -> list[AdaptationSet]:
        """Two adaptation sets for each person of whom there are two pieces: a half to decode, estimated on the other.

        Which pieces are in a half does not depend on the other persons.
        """
        sets = self._sets(features, DataConfig(mode="one_shot"))
        return [each for each in sets if each.estimated_on and each.used_for]

    def _sets(self, features: FeatureTable, data: DataConfig) -> list[AdaptationSet]:
        nowhere = {utterance.id: "" for utterance in features.utterances}
        return adaptation_sets(features, nowhere, data, self.description.seed)


def _moved(table: FeatureTable, space: FeatureSpace) -> FeatureTable:
    """The features of a table in another space; utterance by utterance, as in an experiment, for the same bits."""
    features = FeaturesInSpace(table, space)
    return FeatureTable(table.utterances, np.concatenate([features.of([each]).numpy() for each in table.utterances]))
