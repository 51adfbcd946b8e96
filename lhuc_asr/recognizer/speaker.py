"""A recognizer's speaker: the parameters that were estimated for one person, and the statistics of their features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lhuc_asr.adapt.amplitudes import Amplitudes
from lhuc_asr.adapt.method import AdaptedSpeakers
from lhuc_asr.adapt.methods import load_speakers
from lhuc_asr.adapt.stacked import Stacked, below_in
from lhuc_asr.adapt.transformed import ChangedFeatures
from lhuc_asr.base.destinations import check_writable, leads_to_stream, shown
from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, OutputError
from lhuc_asr.base.numerics import DEVIATION_FLOOR
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.features.cmvn import Cmvn
from lhuc_asr.lhuc.identity import is_model
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.recognizer.model_folder import ModelDescription
from lhuc_asr.recognizer.speaker_file import held

# In a speaker's file: mean and deviation of the speaker's features, shape (D,) each, float64.
CMVN_MEAN, CMVN_DEVIATION = "cmvn.mean", "cmvn.deviation"
# Features are logarithms of energies, and cepstra of these: far below.
LARGEST_STATISTIC = 1e6


@dataclass(frozen=True)
class Speaker:
    """A person to whom a network was adapted.

    Attributes:
        name: Name of the person; "" for the speaker-independent row of an adaptively trained network.
        network: Hash of the network that the parameters belong to.
        adapted: Parameters of the person.
        cmvn: Statistics of the features that the parameters were estimated on; None for a file from an experiment's
            folder, which does not hold them.
    """

    name: str
    network: str
    adapted: AdaptedSpeakers
    cmvn: Cmvn | None

    def save(self, path: str | Path) -> None:
        """Write the person's file, whole or not at all."""
        extras = {}
        if self.cmvn is not None:
            extras = {CMVN_MEAN: self.cmvn.mean, CMVN_DEVIATION: self.cmvn.deviation}
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in extras.items()}
        self.adapted.save_speaker(self.name, Path(path), tensors)


def load_speaker(path: Path, network: AcousticModel, description: ModelDescription) -> Speaker:
    """Read a person's file.

    Args:
        path: The file.
        network: The network of the model.
        description: Description of the model.

    Raises:
        CheckpointError: The file is missing or damaged.
        ModelMismatchError: The file belongs to another network, or to another method on it.
    """
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; name the file of one speaker, <speaker>.safetensors")
    adapted = load_speakers(network, path)
    tensors, _ = load_tensors(path, "copy it again")
    name = next(iter(adapted.speakers), "")
    check_changes(adapted, description, str(path))
    return Speaker(
        name, description.network, adapted, statistics_of(str(path), tensors, description.features.dimension)
    )


def check_changes(adapted: AdaptedSpeakers, description: ModelDescription, who: str) -> None:
    """Refuse parameters without the transform of the features, or the vector beside them, that a network needs.

    Args:
        adapted: The parameters.
        description: Description of the model.
        who: Whose they are, for the message.

    Raises:
        ModelMismatchError: The parameters lack what the model needs, or have one more than it takes.
    """
    method = description.with_speaker.method
    below = None if method is None or method.on is None else description.named(method.on).method
    changing = {
        each.speakers.below: "i-vector" if each.needs_vectors else "transform"
        for each in (below, method)
        if each is not None and issubclass(each.speakers, ChangedFeatures)
    }
    has = _changes_of(adapted)
    if lacking := [what for name, what in changing.items() if name not in has]:
        held = f"a {has[0]}" if has else "amplitudes" if isinstance(adapted, Amplitudes) else "changes of the network"
        also = "also needs" if has or below is not None else "needs"
        raise ModelMismatchError(
            f"{who}: has {held} only; this model {also} the speaker's {' and '.join(lacking)}; adapt the speaker with "
            "this model"
        )
    if below is None and len(has) > 1:
        raise ModelMismatchError(
            f"{who}: changes the features twice, and this model does it once; adapt the speaker with this model"
        )


def _changes_of(adapted: AdaptedSpeakers) -> list[str]:
    """What changes the features of speakers, from below: "transform", "vector"."""
    if isinstance(adapted, Stacked):
        return [adapted.below.below, *_changes_of(adapted.above)]
    return [adapted.below] if isinstance(adapted, ChangedFeatures) else []


def check_file_of(path: Path, speaker: str, network: AcousticModel, holds: str, *, overwrite: bool) -> None:
    """Refuse a file for a speaker that cannot be written, or that holds something else than the speaker.

    Args:
        path: The file to write.
        speaker: Name of the speaker.
        network: The network that the speaker is adapted for.
        holds: What the file will hold, as ``held`` says it.
        overwrite: Whether it may hold anything.

    Raises:
        OutputError: The file cannot be used.
    """
    check_writable(path)
    if overwrite or leads_to_stream(path) or not path.exists() or path.stat().st_size == 0:
        return
    try:
        tensors, description = load_tensors(path)
    except CheckpointError:
        tensors, description = {}, {}
    owner, there = description.get("speaker"), held(str(description.get("format")), below_in(tensors))
    if owner is None:
        problem = "is not a speaker's file"
    elif owner != speaker:
        problem = f"is the file of the speaker {owner!r}"
    elif not is_model(description.get("model"), network):
        problem = f"is the file of the speaker {owner!r}, for another model"
    elif there != holds:
        problem = f"is the file of the speaker {owner!r}, with {there} in place of {holds}"
    else:
        return
    raise OutputError(f"{shown(path)}: exists and {problem}; choose another output, or --overwrite")


def statistics_of(source: str, tensors: Mapping[str, torch.Tensor], dimension: int) -> Cmvn | None:
    """The statistics of the features in a speaker's file; None if the file has none.

    Args:
        source: Where the tensors come from, for the message.
        tensors: The tensors of the file, by name.
        dimension: Number of features per frame, D.

    Raises:
        CheckpointError: They are damaged.
    """
    if CMVN_MEAN not in tensors and CMVN_DEVIATION not in tensors:
        return None
    mean, deviation = (tensors.get(name, torch.empty(0)) for name in (CMVN_MEAN, CMVN_DEVIATION))
    usable = all(
        value.shape == (dimension,)
        and value.dtype in (torch.float32, torch.float64)
        and bool((value.abs() <= LARGEST_STATISTIC).all())
        for value in (mean, deviation)
    )
    # Half the floor: a file in float32 has it rounded.
    if not usable or not bool((deviation >= DEVIATION_FLOOR / 2).all()):
        raise CheckpointError(
            f"{source}: mean and deviation of the features are damaged; copy the file again, or adapt the speaker again"
        )
    return Cmvn(mean.double().numpy(), deviation.double().numpy())
