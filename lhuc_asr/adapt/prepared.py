"""What a technique learns from the training speakers and keeps: tensors, bound to the network and its sites."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch

from lhuc_asr.adapt.method import MethodConfig
from lhuc_asr.base.errors import CheckpointError, ConfigError, ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import load_tensors, save_tensors
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.speaker import model_hash


class PreparedConfig(MethodConfig):
    """Settings of a technique that learns from the training speakers.

    Attributes:
        not_prepared: Settings that nothing learned from the training speakers depends on: techniques that differ in
            no other share what was learned.
    """

    not_prepared: ClassVar[frozenset[str]] = frozenset()


def prepared_file(folder: Path | None, name: str) -> Path:
    """The file in a technique's folder.

    Raises:
        ConfigError: The technique was made without a folder.
    """
    if folder is None:
        raise ConfigError(f"{name}: this technique learns from training speakers; give it a folder to keep that in")
    return folder / name


def check_speaker_count(path: Path, found: int, least: int) -> None:
    """Refuse too few training speakers.

    Raises:
        SpeakerError: With the numbers.
    """
    if found < least:
        raise SpeakerError(f"{path.name}: learned over training speakers, at least {least}; found {found}")


def write_prepared(path: Path, bank: SpeakerBank, tensors: Mapping[str, torch.Tensor], **options: int | None) -> None:
    """Write tensors, whole or not at all, with the model, sites and amplitude of the bank that they belong to.

    Args:
        path: Where to.
        bank: Of the training speakers.
        tensors: What was learned.
        options: Those that it was learned with and cannot be used without.

    Raises:
        CheckpointError: A tensor is not finite.
    """
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path}: {name} is not finite; the training speakers' amplitudes diverged")
    save_tensors(path, dict(tensors), _description(bank) | options)


def read_prepared(path: Path, bank: SpeakerBank, **options: int | None) -> dict[str, torch.Tensor]:
    """Read tensors that belong to a bank's model, sites and amplitude, and to these options.

    Raises:
        CheckpointError: The file is missing or damaged.
        ModelMismatchError: It belongs to another model, other sites, another amplitude or other options.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; prepare the technique on the training speakers first")
    tensors, found = load_tensors(path)
    for key, expected in (_description(bank) | options).items():
        if found.get(key) != expected:
            raise ModelMismatchError(
                f"{path}: made with {key} {found.get(key)!r}, here it is {expected!r}; delete the file and prepare the "
                "technique again"
            )
    device = bank.tables[0].device
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{path}: {name} is not finite, the file is damaged; delete it and prepare again")
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _description(bank: SpeakerBank) -> dict[str, object]:
    return {
        "model": model_hash(bank.model),
        "amplitude": bank.amplitude.name,
        "sites": [[site.name, site.width] for site in bank.sites],
    }
