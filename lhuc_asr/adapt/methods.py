"""The table of adaptation methods. A new method is a file in this room and a line here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lhuc_asr.adapt.basis_fmllr import BasisFmllrConfig
from lhuc_asr.adapt.batch_statistics import BatchStatisticsConfig
from lhuc_asr.adapt.bayes import BayesConfig
from lhuc_asr.adapt.fdlr import FdlrConfig
from lhuc_asr.adapt.fmllr import FmllrConfig
from lhuc_asr.adapt.ivector import IvectorConfig
from lhuc_asr.adapt.lhn import LhnConfig
from lhuc_asr.adapt.lhuc import LhucConfig
from lhuc_asr.adapt.lin import LinConfig
from lhuc_asr.adapt.lora import LoraConfig
from lhuc_asr.adapt.method import AdaptedSpeakers, MethodConfig, ReadableSpeakers
from lhuc_asr.adapt.moments import MomentsConfig
from lhuc_asr.adapt.predicted import PredictedConfig
from lhuc_asr.adapt.prelu import PreluConfig
from lhuc_asr.adapt.speaker_bias import SpeakerBiasConfig
from lhuc_asr.adapt.stacked import on_changed_features
from lhuc_asr.adapt.subspace import SubspaceConfig
from lhuc_asr.adapt.unadapted import UnadaptedConfig
from lhuc_asr.adapt.vtln import VtlnConfig
from lhuc_asr.adapt.whole_network import WholeNetworkConfig
from lhuc_asr.base.config import ChosenByKind
from lhuc_asr.base.errors import CheckpointError, SpeakerError
from lhuc_asr.base.tensors import load_tensors, read_format
from lhuc_asr.lhuc.speaker import described_speaker
from lhuc_asr.nnet.acoustic_model import AcousticModel

# The class of each method's options, by the method's kind. It makes the method, and names the class of its speakers.
METHODS: dict[str, type[MethodConfig]] = {
    "lhuc": LhucConfig,
    "moments": MomentsConfig,
    "bayes": BayesConfig,
    "subspace": SubspaceConfig,
    "predicted": PredictedConfig,
    "fmllr": FmllrConfig,
    "basis_fmllr": BasisFmllrConfig,
    "fdlr": FdlrConfig,
    "vtln": VtlnConfig,
    "ivector": IvectorConfig,
    "lin": LinConfig,
    "lhn": LhnConfig,
    "speaker_bias": SpeakerBiasConfig,
    "prelu": PreluConfig,
    "lora": LoraConfig,
    "whole_network": WholeNetworkConfig,
    "batch_statistics": BatchStatisticsConfig,
    "none": UnadaptedConfig,
}

# The type of a configuration field that chooses a method, as in ``method: {kind: moments}``.
AnyMethod = Annotated[MethodConfig, ChosenByKind(METHODS)]


def load_speakers(model: AcousticModel, place: Path) -> AdaptedSpeakers:
    """Read one speaker's file, or all speakers' files in a folder. The files may be of any method.

    Args:
        model: The network that the speakers belong to.
        place: A file, or a folder of ``*.safetensors``.

    Raises:
        CheckpointError: There is no speaker's file, or a file is damaged or has an unknown format.
        ModelMismatchError: A speaker belongs to another network, or to another method than the others.
        SpeakerError: Two files hold one speaker.
    """
    paths = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    if not paths:
        raise CheckpointError(f"{place}: no speaker's file (*.safetensors) in this folder; adapt to speakers first")
    speakers = speakers_class(paths[0]).load(model, paths)
    owner: dict[str, Path] = {}
    for path in paths:
        name, _, _ = described_speaker(path, *load_tensors(path))
        if owner.setdefault(name, path) != path:
            raise SpeakerError(f"{path}: holds {name!r}, and so does {owner[name].name}; remove one of the two")
    return on_changed_features(speakers, model, paths)


def speakers_class(path: Path) -> type[ReadableSpeakers]:
    """The class that reads a speaker's file.

    Raises:
        CheckpointError: The file is missing or damaged, or has an unknown format.
    """
    form = read_format(path, "a speaker's file")
    classes = {config.speakers.format: config.speakers for config in METHODS.values()}
    if form not in classes:
        raise CheckpointError(
            f"{path}: format {form!r} is not a speaker's; expected {', '.join(classes)}; adapt the speaker again with "
            "this version"
        )
    return classes[form]
