"""One speaker's amplitudes as a value and as a file that can be shipped alone.

The file is a safetensors file. It holds a tensor r (H,) for each site, and a description: the file's format, the
speaker, the amplitude function, the sites, and the identity of the model that r was estimated for. On another model the
numbers mean nothing, so loading them there is an error.
"""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lhuc_asr.base.errors import CheckpointError, ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import load_format, save_tensors
from lhuc_asr.lhuc.identity import differing, same_model
from lhuc_asr.lhuc.site import Site

# The name of row 0, the speaker-independent row of a bank, and of its file.
SPEAKER_INDEPENDENT = ""
SPEAKER_INDEPENDENT_FILE = "speaker-independent"

FORMAT = "lhuc-speaker-1"
# File systems allow 255 bytes a name; the suffix and a temporary file's marks need some of them.
MAX_NAME_BYTES = 200


# Types of r. torch has others, of 8 bits, with which it cannot compute.
FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
# No unit counts a million times as much for one speaker: exp(r) is far beyond that, or infinite, where r diverged.
LARGEST_AMPLITUDE = 1e6
# Numbers in a description, such as axes and widths, are below this.
_LARGEST_NUMBER = 2**31


class Estimated(Protocol):
    """Amplitude parameters that were estimated for one model, at some of its sites, for one amplitude function."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites, in the model's order."""

    @property
    def amplitude(self) -> str:
        """Name of the amplitude function."""

    @property
    def model(self) -> str:
        """``model_hash`` of the model."""


@dataclass(frozen=True)
class SpeakerState:
    """The amplitude parameters of one speaker.

    Attributes:
        speaker: The speaker's name; "" for row 0.
        amplitude: Name of the amplitude function xi.
        model: ``model_hash`` of the model that r belongs to.
        sites: The sites, in the model's order.
        r: The unconstrained parameters: a site's name -> shape (H,).
        extras: Other tensors of the speaker that travel in the file, by name, such as statistics of the features
            that r was estimated on. A bank does not keep them.
        source: The file that the state was read from, for messages; "" if it was not read from a file.

    Raises:
        SpeakerError: r is not finite.
    """

    speaker: str
    amplitude: str
    model: str
    sites: tuple[Site, ...]
    r: Mapping[str, Tensor]
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    source: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        for site, value in self.r.items():
            if not bool(value.isfinite().all()):
                raise not_finite(self.speaker, site)

    def save(self, path: Path | str) -> None:
        """Write the file, whole or not at all."""
        description = {
            "format": FORMAT,
            "speaker": self.speaker,
            "amplitude": self.amplitude,
            "model": self.model,
            "sites": [[site.name, site.dim, site.batch_dim] for site in self.sites],
            "extras": sorted(self.extras),
        }
        if both := sorted(self.r.keys() & self.extras.keys()):
            raise SpeakerError(f"{_whose(self.speaker)}: extras {both} have the names of sites; choose other names")
        save_tensors(Path(path), {**self.r, **self.extras}, description)

    @classmethod
    def load(cls, path: Path | str) -> SpeakerState:
        """Read a speaker's file.

        Raises:
            CheckpointError: The file does not exist, is damaged, or is not a speaker's file.
            SpeakerError: The name in it cannot be a speaker's.
        """
        tensors, description = load_format(path, "a speaker's file", FORMAT)
        speaker, model, extras_named = described_speaker(path, tensors, description)
        try:
            layout = described_sites(description, numbers=2)
            xi = described_name(description, "amplitude")
            r = {name: tensors.pop(name) for name, _ in layout}
            extras = {name: tensors.pop(name) for name in extras_named}
            # A site without an axis is refused below.
            sites = tuple(Site(name, r[name].numel(), *axes) for name, axes in layout)
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path}: damaged, its description does not fit its tensors ({error!r}); copy it again"
            ) from error
        if tensors:
            count = len(r) + len(extras) + len(tensors)
            raise CheckpointError(
                f"{path}: damaged, {count} tensors for {len(sites)} sites and {len(extras)} extras; copy it again"
            )
        for name, value in r.items():
            usable = value.dim() == 1 and len(value) > 0 and value.dtype in FLOATING
            if not usable or not bool(value.isfinite().all()):
                raise CheckpointError(
                    f"{path}: site {name!r}: expected a vector of finite numbers, the file is damaged; copy it again, "
                    "or adapt the speaker again"
                )
        return cls(speaker, xi, model, sites, r, extras, str(path))

    def at(self, sites: tuple[Site, ...]) -> SpeakerState:
        """The same r, at the same sites by other names, in the same order."""
        r = {new.name: self.r[old.name] for old, new in zip(self.sites, sites, strict=True)}
        return replace(self, sites=sites, r=r)

    def check_fits(self, sites: tuple[Site, ...], amplitude: str, model: str) -> None:
        """Refuse r that was estimated for something else; see ``check_fits``."""
        who = f"{self.source}: " * bool(self.source) + _whose(self.speaker)
        check_fits(self, who, sites, amplitude, model)


def described(value: Any, *kinds: type) -> Any:
    """A value of a file's description, if it is of a kind, and so are its items of the next kind.

    Raises:
        ValueError: It is something else.

    Example:
        >>> described(["a", "b"], list, str)
        ['a', 'b']
    """
    items = value  # the next line makes a mere object of ``value``
    if type(value) is not kinds[0]:
        raise ValueError(f"expected a {kinds[0].__name__}, found {reprlib.repr(value)}")
    return [described(item, *kinds[1:]) for item in items] if len(kinds) > 1 else items


def described_name(description: Mapping[str, Any], key: str) -> str:
    """A name in a file's description: text that can be shown in one line.

    Raises:
        KeyError: The description does not have it.
        ValueError: It is something else.
    """
    name: str = described(description[key], str)
    if not name.isprintable():
        raise ValueError(f"{key} {name!r} cannot be shown")
    return name


def described_speaker(
    path: Path | str, tensors: Collection[str], description: Mapping[str, Any]
) -> tuple[str, str, tuple[str, ...]]:
    """What every speaker's file says of itself, whatever the method that estimated it.

    Args:
        path: The file, for messages.
        tensors: Names of its tensors.
        description: Its description.

    Returns:
        Name of the speaker, "" for row 0 of amplitudes; what identifies the model; names of the tensors that are not
        the method's own.

    Raises:
        CheckpointError: The description lacks them, or names tensors that are not there.
        SpeakerError: The name cannot be a speaker's.
    """
    try:
        speaker, model = (described_name(description, key) for key in ("speaker", "model"))
        extras = described(description.get("extras", []), list, str)
        if missing := set(extras) - set(tensors):
            raise ValueError(f"{min(missing)!r} is missing")
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged, its description does not fit its tensors ({error!r}); adapt the speaker again"
        ) from error
    if speaker != SPEAKER_INDEPENDENT or description.get("format") != FORMAT:
        try:
            check_speaker_name(speaker)
        except SpeakerError as error:
            raise SpeakerError(f"{path}: {error}") from error
    return speaker, model, tuple(extras)


def described_sites(description: Mapping[str, Any], numbers: int) -> list[tuple[str, list[int]]]:
    """The sites in a file's description: the name of each, and so many numbers that follow it.

    Raises:
        KeyError: The description has no sites.
        ValueError: They are something else, there are none, or one occurs twice.
    """
    rows = described(description["sites"], list, list)
    sites = [(described_name({"site": row[0]}, "site"), row[1:]) for row in rows if row]
    for name, values in sites:
        if len(values) != numbers or any(abs(described(value, int)) >= _LARGEST_NUMBER for value in values):
            raise ValueError(f"site {name!r} has {reprlib.repr(values)}, expected {numbers} numbers")
    if not sites or len(dict(sites)) < len(rows):
        raise ValueError("no sites, or one that occurs twice or has no name")
    return sites


def check_fits(estimated: Estimated, who: str, sites: tuple[Site, ...], amplitude: str, model: str) -> None:
    """Refuse parameters that were estimated for something else.

    Args:
        estimated: The parameters.
        who: Whose they are, in the singular, for messages.
        sites: The sites that they must have.
        amplitude: Name of the amplitude function that they must have.
        model: ``model_hash`` of the model that they must belong to.

    Raises:
        ModelMismatchError: The model, the sites or the amplitude function is another one.
    """
    if not same_model(estimated.model, model):
        raise ModelMismatchError(f"{who} {differing(estimated.model, model)}")
    if estimated.sites != sites:
        raise ModelMismatchError(
            f"{who} has amplitudes at {_list(estimated.sites)}, the bank at {_list(sites)}; attach at the same sites"
        )
    if estimated.amplitude != amplitude:
        raise ModelMismatchError(
            f"{who} has the amplitude {estimated.amplitude!r}, the bank {amplitude!r}; attach with the same amplitude"
        )


def speaker_path(folder: Path | str, speaker: str) -> Path:
    """The file of a speaker in a folder of speakers."""
    return Path(folder) / f"{speaker or SPEAKER_INDEPENDENT_FILE}.safetensors"


def check_speaker_name(name: str) -> None:
    """Refuse a name that cannot be a file's name on every system, or that leads out of its folder.

    Raises:
        SpeakerError: The name cannot be used; the message says why.
    """
    if not isinstance(name, str) or not name:
        problem = "is empty or not text"
    elif name == SPEAKER_INDEPENDENT_FILE:
        problem = "is reserved for row 0"
    elif name.startswith(".") or set(name) & set('/\\:*?"<>|') or not name.isprintable() or name != name.strip():
        problem = "cannot be a file's name (no leading dot, none of / \\ : * ? \" < > |, no spaces at its ends)"
    elif len(name.encode()) > MAX_NAME_BYTES:
        problem = f"is longer than {MAX_NAME_BYTES} bytes"
    else:
        return
    raise SpeakerError(f"speaker name {name!r} {problem}; choose another")


def not_finite(speaker: str, site: str) -> SpeakerError:
    """The error for a row that holds NaN or infinity, or whose amplitudes do."""
    reset = f", or set it back to row 0: bank.reset([{speaker!r}])" if speaker else ""
    return SpeakerError(
        f"{_whose(speaker)}: r at site {site!r} is not finite, or an amplitude is beyond {LARGEST_AMPLITUDE:g}: its "
        f"estimation diverged; estimate it again with a smaller learning rate{reset}"
    )


def _whose(speaker: str) -> str:
    return f"speaker {speaker!r}" if speaker else "row 0 (speaker-independent)"


def _list(sites: tuple[Site, ...]) -> str:
    return ", ".join(f"{site.name} ({site.width})" for site in sites)
