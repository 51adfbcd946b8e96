"""A model's files in memory, checked to belong together, and the loop over a person's speech with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lhuc_asr.adapt.adaptation_sets import AdaptationSet, DataConfig, adaptation_sets
from lhuc_asr.adapt.two_pass import TwoPass
from lhuc_asr.base.errors import ExperimentError, ModelMismatchError
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.hmm import topology
from lhuc_asr.hmm.topology import ContextDependency
from lhuc_asr.lang.lexicon import Lexicon, WordTable
from lhuc_asr.lang.lexicon_folder import read_lexicon_folder
from lhuc_asr.lang.tags import spoken_words, tags_of
from lhuc_asr.lhuc.identity import is_model
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.recognizer.model_folder import ModelDescription, ModelFiles
from lhuc_asr.recognizer.speaker import Speaker, load_speaker
from lhuc_asr.recognizer.speaker_files import speaker_file
from lhuc_asr.recognizer.speech import Speech
from lhuc_asr.recognizer.transcript import recording_name


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory; nothing in it changes.

    Attributes:
        description: Description of the model.
        files: Paths of the model's files.
        network: The acoustic model.
        topology: States of the phones.
        lexicon: Pronunciations.
        pool: Pool that searches the decoding graph.

    Raises:
        ExperimentError: The files are each sound, but of different models.
    """

    description: ModelDescription
    files: ModelFiles
    network: AcousticModel
    topology: ContextDependency
    lexicon: Lexicon
    pool: SearchPool

    @classmethod
    def read(cls, description: ModelDescription, files: ModelFiles, device: torch.device) -> LoadedModel:
        """Read the files of a model, the network to a device; searches run in this process."""
        network = load_model(files.network).requires_grad_(False).to(device)
        lexicon, pool = read_lexicon_folder(files.lang), SearchPool(files.lang, processes=0)
        return cls(description, files, network, topology.load(files.topology), lexicon, pool)

    def __post_init__(self) -> None:
        network, states, graph = self.network, self.topology, self.pool.graph
        strange = set(graph.words) - set(WordTable(self.lexicon.words).symbols)
        problem = None
        if network.feature_dimension != self.description.features.dimension:
            problem = f"features of {self.description.features.dimension}, a network of {network.feature_dimension}"
        elif not network.pdf_count == states.pdf_count == graph.pdf_count:
            problem = (
                f"a network of {network.pdf_count} pdfs, states of {states.pdf_count}, a graph of {graph.pdf_count}"
            )
        elif self.lexicon.phones != states.phones or graph.context_width != states.context_width:
            problem = "a lexicon or a graph of other phones than the states'"
        elif not is_model(self.description.network, network):
            problem = "the description is of another network, and so would be the speakers' files"
        elif strange:
            problem = f"the graph's word {min(strange)!r} is not in the lexicon"
        if problem is not None:
            raise ExperimentError(
                f"{self.files.network}: its files are of different models: {problem}; copy the folder again"
            )

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
            ModelMismatchError: The person belongs to another network.
            SpeakerError: No speaker's file has that name.
        """
        if isinstance(speaker, str | Path):
            return load_speaker(speaker_file(speaker), self.network, self.description)
        if speaker is not None and not is_model(speaker.network, self.network):
            raise ModelMismatchError(
                f"speaker {speaker.name!r} was adapted on the model {speaker.network[:12]}, this one is "
                f"{self.description.network[:12]}; adapt to the speaker with this model"
            )
        return speaker

    def loop(self, speech: Speech) -> TwoPass:
        """The two-pass loop over the pieces of a person's speech."""
        pieces = {piece.id: piece for piece in speech.pieces}
        alignment_model = self.files.alignment_model(self.topology.pdf_count)
        return TwoPass(self.network, speech.features, self.topology.silence_pdfs, pieces, alignment_model)

    def sets(self, speech: Speech) -> list[AdaptationSet]:
        """One adaptation set for each person: all pieces, to estimate on in an order chosen by the seed, and to decode.

        The order does not depend on the other persons.
        """
        return adaptation_sets(
            speech.features, {piece.id: "" for piece in speech.pieces}, DataConfig(), self.description.seed
        )
