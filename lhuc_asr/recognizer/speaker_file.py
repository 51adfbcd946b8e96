"""What a speaker's file says of itself, whatever the method that estimated it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lhuc_asr.adapt.methods import speakers_class
from lhuc_asr.adapt.stacked import below_in
from lhuc_asr.base.errors import ModelMismatchError
from lhuc_asr.base.tensors import load_tensors
from lhuc_asr.lhuc.amplitude import amplitude
from lhuc_asr.lhuc.identity import differing, same_model
from lhuc_asr.lhuc.speaker import FORMAT as AMPLITUDES
from lhuc_asr.lhuc.speaker import SpeakerState, described_speaker


@dataclass(frozen=True)
class Spread:
    """Spread of some numbers: the amplitudes at a site, or a tensor of another method.

    Attributes:
        name: Name of the site or of the tensor.
        count: How many numbers there are.
        mean, deviation, lowest, highest: Statistics of the numbers; of amplitudes, those of xi(r).
    """

    name: str
    count: int
    mean: float
    deviation: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class SpeakerFile:
    """A speaker's file.

    Attributes:
        path: The file.
        speaker: Name of the speaker; "" for row 0 of an adaptively trained network.
        model: Identity of the network, or of the Gaussians, that the parameters belong to.
        format: Format of the file.
        extras: Names of the tensors that are not the method's own, such as statistics of the features.
        amplitudes: The speaker's amplitudes; None for a method that estimates something else.
    """

    path: Path
    speaker: str
    model: str
    format: str
    extras: tuple[str, ...]
    amplitudes: SpeakerState | None

    @classmethod
    def load(cls, path: Path) -> SpeakerFile:
        """Read a file.

        Raises:
            CheckpointError: The file is missing, damaged, or not a speaker's.
            SpeakerError: The name in it cannot be a speaker's.
        """
        form = speakers_class(path).format
        if form == AMPLITUDES:
            state = SpeakerState.load(path)
            return cls(path, state.speaker, state.model, form, tuple(state.extras), state)
        speaker, model, extras = described_speaker(path, *load_tensors(path))
        return cls(path, speaker, model, form, extras, None)

    @property
    def holds(self) -> str:
        """What the file holds of its speaker; see ``held``."""
        return held(self.format, below_in(self.extras))

    def check_beside(self, other: SpeakerFile) -> None:
        """Refuse a file that cannot be in one folder with another: of another model, or with something else in it.

        Raises:
            ModelMismatchError: It cannot.
        """
        if self.holds != other.holds:
            raise ModelMismatchError(
                f"{self.path}: holds {self.holds}, {other.path} holds {other.holds}; a folder has the speakers of one "
                "method"
            )
        if self.amplitudes is not None and other.amplitudes is not None:
            first = other.amplitudes
            self.amplitudes.check_fits(first.sites, first.amplitude, first.model)
        elif not same_model(self.model, other.model):
            raise ModelMismatchError(f"{self.path}: speaker {self.speaker!r} {differing(self.model, other.model)}")

    def spreads(self) -> list[Spread]:
        """The speaker's numbers: amplitudes site by site, the parameters of another method tensor by tensor."""
        if self.amplitudes is not None:
            xi = amplitude(self.amplitudes.amplitude)
            values = {site.name: xi(self.amplitudes.r[site.name]) for site in self.amplitudes.sites}
        else:
            tensors, _ = load_tensors(self.path)
            values = {name: value for name, value in tensors.items() if name not in self.extras}
        numbers = {name: value.double() for name, value in values.items() if value.numel()}
        return [
            Spread(name, v.numel(), float(v.mean()), float(v.std(correction=0)), float(v.min()), float(v.max()))
            for name, v in numbers.items()
        ]


def held(form: str, below: str | None) -> str:
    """What a speaker's file of a format holds, in a word or two: "amplitudes", "transform", "lora".

    Args:
        form: The format.
        below: What the file has below the method: "transform", "vector"; None for nothing.
    """
    words = [word for word in form.split() if word not in ("lhuc_asr", "speaker") and not word.isdigit()]
    what = "amplitudes" if form == AMPLITUDES else " ".join(words)
    return what if below is None else f"{what} on {below}"
