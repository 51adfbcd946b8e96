"""What a method has learned from the training speakers: a file of tensors that belongs to one network and its sites."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import torch

from lhuc_asr.adapt.amplitudes import new_bank
from lhuc_asr.adapt.lhuc import LearnedLhucConfig, Lhuc
from lhuc_asr.adapt.method import MethodConfig
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.errors import AlignmentError, CheckpointError, ConfigError, ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import Shape, check_tensors, load_tensors, save_tensors
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.identity import is_model, model_hash
from lhuc_asr.nnet.acoustic_model import AcousticModel

REMEDY = "delete it and prepare the method again"


class PreparedConfig(MethodConfig):
    """Options of a method that learns from the training speakers.

    It learns from the features that the network was trained on, also for a pass on top of another: test speakers'
    features are then moved by ``fdlr`` or ``vtln``, and the training speakers' are as they are. On top of ``ivector``
    both have their vectors beside them.

    Attributes:
        not_prepared: Names of the options that do not affect what is learned from the training speakers. Methods that
            differ only in these share one preparation.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset()


def prepared_file(folder: Path | None, name: str) -> Path:
    """The path of a file in a method's folder.

    Raises:
        ConfigError: The method was made without a folder.
    """
    if folder is None:
        raise ConfigError(f"{name}: this method learns from the training speakers; give it a folder for what it learns")
    return folder / name


def check_speaker_count(path: Path, count: int, least: int) -> None:
    """Refuse too few training speakers.

    Args:
        path: The file that would be written.
        count: Number of training speakers that can be learned from.
        least: Minimum number that the method needs.

    Raises:
        SpeakerError: There are fewer than ``least``.
    """
    if count < least:
        raise SpeakerError(
            f"{path.name}: the method needs at least {least} training speakers with frames of weight > 0; found {count}"
        )


def learned_bank(
    path: Path, config: LearnedLhucConfig, model: AcousticModel, training: Mapping[str, SpeakerData], seed: int
) -> SpeakerBank:
    """The training speakers' amplitudes, from which a method learns.

    Speakers whose frames all have weight 0, or whose amplitudes diverged, teach nothing and are left out; a warning
    names those who diverged.

    Args:
        path: The file that is going to be written, for messages.
        config: Options of the descent.
        model: The network; it comes back unchanged.
        training: The training speakers, with their reference alignment as targets.
        seed: Seed of the descent.

    Raises:
        SpeakerError: Fewer than two speakers are left.
    """
    heard = {name: data for name, data in training.items() if data.targets.weight.any()}
    check_speaker_count(path, len(heard), 2)
    bank = Lhuc(config).estimate(model, heard, seed).bank
    rows = bank.side_by_side()
    # A descent moves every row; one that is still at row 0 was put back there.
    moved = [name for name, row in zip(heard, rows[1:], strict=True) if not torch.equal(row, rows[0])]
    if len(moved) == len(heard):
        return bank
    check_speaker_count(path, len(moved), 2)
    kept = new_bank(model, moved, config.amplitude, config.layers)
    kept.fill({site.name: bank.r(site.name, bank.rows_of(moved)).detach() for site in bank.sites})
    return kept


def check_frames(count: float, speakers: int) -> None:
    """Refuse training speakers without frames.

    Args:
        count: Number of their frames, weighted.
        speakers: Number of training speakers.

    Raises:
        AlignmentError: ``count`` is 0.
    """
    if not count:
        raise AlignmentError(f"none of {speakers} training speakers has a frame of weight > 0; align them first")


def write_activations(path: Path, model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write statistics of the training speakers' activations with the model that they belong to, whole or not at all.

    Args:
        path: The file.
        model: The model.
        tensors: The statistics, by name.

    Raises:
        AlignmentError: A tensor is not finite.
    """
    check_finite(tensors.values())
    save_tensors(path, dict(tensors), {"model": model_hash(model)})


def check_finite(statistics: Iterable[torch.Tensor]) -> None:
    """Refuse statistics of the training speakers' activations that are not finite.

    Raises:
        AlignmentError: They are not.
    """
    if not all(bool(each.isfinite().all()) for each in statistics):
        raise AlignmentError("activations of the training speakers are not finite; check their features")


def write_prepared(path: Path, bank: SpeakerBank, tensors: Mapping[str, torch.Tensor], **options: int | None) -> None:
    """Write tensors with the model, sites and amplitude function that they belong to, whole or not at all.

    Args:
        path: The file.
        bank: Bank of the training speakers.
        tensors: What was learned, by name.
        options: Options that must be the same when the tensors are read.

    Raises:
        CheckpointError: A tensor is not finite.
    """
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path}: {name} is not finite; learn with smaller learning rates")
    save_tensors(path, dict(tensors), {"model": model_hash(bank.model)} | _amplitudes(bank) | options)


def load_prepared(
    path: Path, model: torch.nn.Module, options: Mapping[str, object], shapes: Mapping[str, Shape]
) -> dict[str, torch.Tensor]:
    """The tensors of a file that a method wrote.

    Args:
        path: The file.
        model: The model that it must belong to.
        options: Other values that its description must have, by key.
        shapes: Shapes of the tensors that it must have, by name.

    Raises:
        CheckpointError: The file is missing or damaged, or has other tensors.
        ModelMismatchError: It belongs to another model, or its description has other values.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; prepare the method on the training speakers first")
    tensors, description = load_tensors(path, REMEDY)
    # What it belongs to comes first: the shapes of another network are others.
    if not is_model(description.get("model"), model):
        raise ModelMismatchError(
            f"{path}: made with model {reprlib.repr(description.get('model'))}, here it is {model_hash(model)[:12]}; "
            "delete the file and prepare the method again"
        )
    for key, expected in options.items():
        if description.get(key) != expected:
            raise ModelMismatchError(
                f"{path}: made with {key} {reprlib.repr(description.get(key))}, here it is {expected!r}; delete the "
                "file and prepare the method again"
            )
    check_tensors(path, tensors, shapes, REMEDY)
    return tensors


def read_prepared(
    path: Path, bank: SpeakerBank, shapes: Mapping[str, Shape], **options: int | None
) -> dict[str, torch.Tensor]:
    """Read tensors that ``write_prepared`` wrote.

    Args:
        path: The file.
        bank: A bank with the model, sites and amplitude function that the tensors must belong to.
        shapes: Shapes of the tensors that it must have, by name.
        options: Options that the tensors must have been written with.

    Raises:
        CheckpointError: The file is missing or damaged, or has other tensors.
        ModelMismatchError: The tensors belong to another model, other sites, another amplitude function or other
            options.
    """
    tensors = load_prepared(path, bank.model, _amplitudes(bank) | options, shapes)
    device = bank.tables[0].device
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _amplitudes(bank: SpeakerBank) -> dict[str, object]:
    return {
        "amplitude": bank.amplitude.name,
        "sites": [[site.name, site.width] for site in bank.sites],
    }
