"""A recognizer that adapts to a new speaker: the two passes of an experiment, on recordings that a user names.

The recordings of one call are one speaker's: their features are normalised together, as an experiment normalises all
of a test speaker's. A speaker's file keeps mean and deviation beside the amplitudes, since these were estimated on
features normalised so: with it, each recording is transcribed the same whichever others are transcribed with it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch

from lhuc_asr.adapt.lhuc import LhucSpeakers
from lhuc_asr.adapt.methods import make_method
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.features.cmvn import Cmvn
from lhuc_asr.features.store import blocks_of
from lhuc_asr.hmm.topology import MonophoneTopology
from lhuc_asr.lhuc.attach import attach
from lhuc_asr.lhuc.speaker import SpeakerState, check_speaker_name
from lhuc_asr.nnet.checkpoint import load_model
from lhuc_asr.offline.model_folder import ModelFiles
from lhuc_asr.offline.recordings import recordings
from lhuc_asr.offline.speech import read_speech
from lhuc_asr.pipeline.acoustics import SCORING_FRAMES, score_utterance
from lhuc_asr.pipeline.language import read_experiment_lexicon
from lhuc_asr.pipeline.recipe import DataConfig
from lhuc_asr.pipeline.shares import shares
from lhuc_asr.pipeline.two_pass import TwoPass, targets_of

CMVN_MEAN, CMVN_DEVIATION = "cmvn.mean", "cmvn.deviation"


class Recognizer:
    def __init__(self, files: ModelFiles) -> None:
        self.files = files
        self.description = files.description
        self._model = load_model(files.network)
        self._topology = MonophoneTopology.load(files.topology)
        self._lexicon = read_experiment_lexicon(files.lang)
        self._searches = SearchPool(files.lang, 0)

    def adapt(self, audio, speaker: str = "speaker") -> SpeakerState:
        check_speaker_name(speaker)
        with recordings(audio) as named:
            speech = read_speech(named, self.description.features, speaker)
        two_pass = TwoPass(self._model, speech.table, self._topology.silence_pdfs)
        options = self.description
        scores = ((u, s) for block in self._scored(speech, None) for u, s in block)
        found = list(self._searches.search_all(scores, options.first_search))
        targets = two_pass.alignment_targets(targets_of(found), options.targets.silence_weight)
        adapted = two_pass.adapt(
            make_method(options.method, self.files.prepared),
            targets,
            shares(speech.table, DataConfig(), options.seed),
            options.seed,
        )
        state = adapted.bank.state(speaker)
        extras = {
            CMVN_MEAN: torch.from_numpy(speech.cmvn.mean),
            CMVN_DEVIATION: torch.from_numpy(speech.cmvn.deviation),
        }
        return replace(state, extras=extras)

    def transcribe(self, audio, speaker: SpeakerState | None = None):
        with recordings(audio) as named:
            speech = read_speech(named, self.description.features, "", None if speaker is None else _cmvn_of(speaker))
        search = self.description.first_search if speaker is None else self.description.adapted_search
        for block in self._scored(speech, speaker):
            yield from self._searches.lattices_all(block, search, self.description.lattice)

    def _scored(self, speech, speaker):
        bank = None
        if speaker is not None:
            bank = attach(self._model, [s.name for s in speaker.sites], [], amplitude=speaker.amplitude)
            bank.put(speaker)
            bank.detach()
        for block in blocks_of(speech.table.utterances, SCORING_FRAMES):
            with LhucSpeakers(bank).applied(self._model, speaker.speaker) if bank else nullcontext():
                scores = [(u.id, score_utterance(self._model, speech.table[u.id])) for u in block]
            yield scores


def _cmvn_of(s):
    return Cmvn(s.extras[CMVN_MEAN].numpy(), s.extras[CMVN_DEVIATION].numpy())
