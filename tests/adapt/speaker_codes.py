"""A method that changes inputs, written for the tests: a code of P numbers for each speaker.

    inputs of the network = spliced features + c E

The embedding E (P, w D) is learned over the training speakers together with their codes; a new speaker's code c
is estimated with E fixed: the speaker codes of Abdel-Hamid and Jiang (ICASSP 2013), connected to the inputs. The
network's weights are the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from tensor_speakers import Tensors, TensorSpeakers, spliced, utterances_of

from lhuc_asr.adapt.method import ReadableSpeakers, warn_unadapted
from lhuc_asr.adapt.prepared import PreparedConfig, prepared_file
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.errors import ModelMismatchError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.lhuc.freeze import frozen
from lhuc_asr.lhuc.identity import is_model, model_hash
from lhuc_asr.lhuc.objective import CandidateTargets, FrameCrossEntropy, join_targets
from lhuc_asr.nnet.acoustic_model import AcousticModel

EMBEDDING_FILE = "embedding.safetensors"


class CodedSpeakers(TensorSpeakers):
    """Speakers with a code each; a file has what the code adds to the inputs, so that it can be shipped alone."""

    format: ClassVar[str] = "test-code-1"
    names: ClassVar[tuple[str, ...]] = ("shift",)

    @classmethod
    def inputs(cls, model: AcousticModel, own: Tensors, features: torch.Tensor) -> torch.Tensor:
        return spliced(model, features) + own["shift"]


class CodeConfig(PreparedConfig):
    """Options of the codes.

    Attributes:
        kind: Name of the method.
        dimensions: Length of a code, P.
        steps: Number of steps of Adam, all frames in each.
        learning_rate: Step size of Adam.
        prior_weight: Weight of c^2 / 2 beside the sum over a speaker's frames.
    """

    speakers: ClassVar[type[ReadableSpeakers]] = CodedSpeakers

    kind: Literal["code"] = "code"
    dimensions: int = 3
    steps: int = 80
    learning_rate: float = 0.03
    prior_weight: float = 1.0

    def make(self, folder: Path | None) -> Code:
        return Code(self, folder)


class Code:
    """Speaker codes as an adaptation method."""

    def __init__(self, config: CodeConfig, folder: Path | None) -> None:
        self.config = config
        self._folder = folder

    def prepare(self, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int) -> None:
        width = model.splicing.window
        generator = torch.Generator().manual_seed(seed)
        embedding = (0.1 * torch.randn(self.config.dimensions, width, generator=generator)).requires_grad_()
        with frozen(model):
            self._fit(model, list(training.values()), embedding, learned=[embedding])
        path = prepared_file(self._folder, EMBEDDING_FILE)
        save_tensors(path, {"embedding": embedding}, {"model": model_hash(model)})

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> CodedSpeakers:
        path = prepared_file(self._folder, EMBEDDING_FILE)
        tensors, description = load_tensors(path)
        if not is_model(description["model"], model):
            raise ModelMismatchError(f"{path}: made with another network; delete it and prepare again")
        for name, data in speakers.items():
            data.check_fits(name, model)
        with frozen(model):
            # One speaker at a time: nobody's code depends on the others.
            codes = {name: self._fit(model, [data], tensors["embedding"], [])[0] for name, data in speakers.items()}
        diverged = [name for name, code in codes.items() if not bool(code.isfinite().all())]
        warn_unadapted("they diverged", diverged, len(speakers))
        codes |= {name: torch.zeros(self.config.dimensions) for name in diverged}
        return CodedSpeakers(model, {name: {"shift": code @ tensors["embedding"]} for name, code in codes.items()})

    def _fit(
        self,
        model: AcousticModel,
        speakers: Sequence[SpeakerData],
        embedding: torch.Tensor,
        learned: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Codes of speakers, shape (S, P); ``learned`` is what is learned with them."""
        codes = torch.zeros(len(speakers), self.config.dimensions, requires_grad=True)
        targets: CandidateTargets = join_targets([data.targets.tensors() for data in speakers])
        if not targets.weights.any():
            return codes.detach()
        inputs = torch.cat([spliced(model, features) for data in speakers for features in utterances_of(data)])
        frames = torch.tensor([len(data.features) for data in speakers])
        speaker = torch.repeat_interleave(torch.arange(len(speakers)), frames)
        optimizer, objective = torch.optim.Adam([codes, *learned], lr=self.config.learning_rate), FrameCrossEntropy()
        for _ in range(self.config.steps):
            loss = objective(model(inputs + (codes @ embedding)[speaker]), targets)
            loss = loss + self.config.prior_weight / 2 * codes.square().sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return codes.detach()
