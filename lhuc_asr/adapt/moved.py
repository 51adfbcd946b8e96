"""What the rivals of LHUC share: numbers of each speaker that change a layer of a feed-forward network, by descent.

A rival says which numbers there are, where they begin, and what they do to the inputs, the weights or the activations
(``Move``). Descent, files and controls are the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn import functional

from lhuc_asr.adapt.descent import Descent, DescentConfig
from lhuc_asr.adapt.method import MethodConfig, check_lenders, speaker_of_each
from lhuc_asr.adapt.movable import warn_diverged
from lhuc_asr.adapt.speaker_data import SpeakerData
from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.errors import CheckpointError, ConfigError, ModelMismatchError, SpeakerError
from lhuc_asr.base.tensors import check_tensors, load_format, save_tensors
from lhuc_asr.lhuc.identity import is_model, model_hash
from lhuc_asr.lhuc.row_optim import OPTIMIZERS, RowTable
from lhuc_asr.nnet.acoustic_model import AcousticModel, over_priors
from lhuc_asr.nnet.feed_forward import FeedForward

REMEDY = "adapt the speaker again"
# Memory for the numbers of the speakers who adapt together, and for the optimizer's, in bytes.
NUMBERS_BYTES = 1 << 28
BYTES_PER_NUMBER = 16  # itself, its gradient, and two moments, each float32

# The numbers of N speakers, by name, shapes (N, ...).
Numbers = Mapping[str, Tensor]


class Move(StrictModel):
    """What speakers' numbers change in a network; this base class changes nothing.

    The fields of a subclass are the options that the numbers' shapes depend on.
    """

    @abstractmethod
    def start(self, network: FeedForward, seed: int) -> dict[str, Tensor]:
        """The numbers that change nothing, by name.

        Raises:
            SiteError: The network does not have what they would change.
        """

    def inputs(self, own: Numbers, spliced: Tensor) -> Tensor:
        """The network's inputs (N, B, w D + R)."""
        return spliced

    def affine(self, own: Numbers, layer: int, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Outputs (N, B, H') of a layer's affine map for ``hidden`` (N, B, H).

        Where a layer computes several positions of the window, B counts the positions of all frames.
        """
        return functional.linear(hidden, weight, bias)

    def activated(self, own: Numbers, layer: int, network: FeedForward, outputs: Tensor) -> Tensor:
        """Activations (N, B, H') of a hidden layer for the outputs of its affine map."""
        return network.activated(layer, outputs)

    def logits(self, network: FeedForward, own: Numbers, spliced: Tensor) -> Tensor:
        """Logits (N, B, K) of frames (N, B, w D + R), those of a speaker in each block."""
        hidden = self.inputs(own, spliced)
        for layer, (weight, bias) in enumerate(network.affine):
            hidden = self.affine(own, layer, network.arranged(layer, hidden), weight, bias)
            if layer < len(network.affine) - 1:
                hidden = self.activated(own, layer, network, hidden)
        return hidden


def affine_map(own: Numbers, values: Tensor) -> Tensor:
    """``matrix`` x + ``offset`` of each speaker, for values (N, B, H)."""
    return torch.baddbmm(own["offset"].unsqueeze(1), values, own["matrix"].mT)


@dataclass(frozen=True)
class MovedSpeakers:
    """The numbers of some speakers, and the network that they change; an ``AdaptedSpeakers``.

    Attributes:
        model: The network.
        move: What the numbers change.
        numbers: Numbers of each speaker, by the speaker's name.
    """

    model: AcousticModel
    move: Move
    numbers: Mapping[str, Numbers]

    format: ClassVar[str]
    moves: ClassVar[type[Move]]

    @cached_property
    def _network(self) -> FeedForward:
        return self.model.feed_forward()

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        return tuple(self.numbers)

    def log_likelihoods(self, speakers: str | Sequence[str], utterances: Sequence[np.ndarray]) -> np.ndarray:
        """Log p(x | pdf) of utterances by the network as each speaker's numbers change it; see ``AdaptedSpeakers``.

        Raises:
            SpeakerError: A speaker is unknown.
        """
        names = speaker_of_each(speakers, utterances)
        scores = [np.zeros((0, self.model.pdf_count), np.float32)]
        for name, features in zip(names, utterances, strict=True):
            own = {part: values.unsqueeze(0) for part, values in self.of(name).items()}
            with torch.no_grad():
                spliced = self.model.splicing.utterance(torch.from_numpy(np.array(features)))
                spliced = spliced.to(self._network.device)
                logits = self.move.logits(self._network, own, spliced.unsqueeze(0))[0]
                scores.append(over_priors(logits, self.model.log_prior).cpu().numpy())
        return np.concatenate(scores)

    def of(self, speaker: str) -> Numbers:
        """The numbers of a speaker.

        Raises:
            SpeakerError: The speaker is unknown.
        """
        if speaker not in self.numbers:
            raise SpeakerError(
                f"speaker {speaker!r} was not adapted to, {len(self.numbers)} others were; adapt to the speaker first"
            )
        return self.numbers[speaker]

    def pooled(self, speakers: Collection[str], over: Collection[str]) -> Self:
        """The mean of the numbers of those in ``over``, for those in ``speakers``; see ``AdaptedSpeakers``.

        Raises:
            SpeakerError: A speaker is unknown, or ``over`` is empty.
        """
        for name in speakers:
            self.of(name)
        check_lenders(over)
        others = [self.of(name) for name in over]
        mean = {part: torch.stack([own[part] for own in others]).mean(0) for part in others[0]}
        return type(self)(self.model, self.move, dict.fromkeys(speakers, mean))

    def unadapted(self) -> Self:
        """The speakers with numbers that change nothing; see ``AdaptedSpeakers``."""
        network = self.model.feed_forward()
        start = {part: values.to(network.device) for part, values in self.move.start(network, 0).items()}
        return type(self)(self.model, self.move, dict.fromkeys(self.speakers, start))

    def save(self, folder: Path) -> None:
        """Write ``<speaker>.safetensors`` for each speaker."""
        for name in self.numbers:
            self.save_speaker(name, folder / f"{name}.safetensors", {})

    def save_speaker(self, speaker: str, path: Path, extras: Mapping[str, Tensor]) -> None:
        """Write one speaker's file, with extra tensors."""
        description: dict[str, Any] = {"format": self.format, "speaker": speaker, "model": model_hash(self.model)}
        description |= {"move": self.move.model_dump(mode="json"), "extras": sorted(extras)}
        save_tensors(path, {**self.of(speaker), **extras}, description)

    @classmethod
    def load(cls, model: AcousticModel, paths: Sequence[Path]) -> Self:
        """Read speakers' files; see ``AdaptedSpeakers``.

        Raises:
            CheckpointError: A file is missing or damaged.
            ModelMismatchError: A speaker belongs to another network, or has other numbers than the others.
        """
        move: Move | None = None
        numbers: dict[str, Numbers] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            tensors, description = load_format(path, "a speaker's file", cls.format)
            name, written_for, extras = (description.get(key) for key in ("speaker", "model", "extras"))
            if not isinstance(name, str) or not isinstance(written_for, str) or not isinstance(extras, list):
                raise CheckpointError(f"{path}: its description lacks the speaker or the network; {REMEDY}")
            if not is_model(written_for, model):
                raise ModelMismatchError(f"{path}: the speaker belongs to another network; {REMEDY}")
            try:
                own_move = parse_config(cls.moves, dict(description["move"]), str(path))
            except (ConfigError, KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{path}: its description lacks what was adapted ({error}); {REMEDY}") from error
            if move is None:
                move = own_move
                shapes = {part: tuple(each.shape) for part, each in move.start(model.feed_forward(), 0).items()}
            if move != own_move:
                raise ModelMismatchError(f"{path}: adapted with other options than {paths[0].name}; {REMEDY}")
            own = {part: values for part, values in tensors.items() if part not in extras}
            check_tensors(path, own, shapes, REMEDY)
            numbers[name] = {part: values.to(model.log_prior.device) for part, values in own.items()}
        if move is None:
            raise CheckpointError(f"no speaker's file of format {cls.format!r}; adapt to speakers first")
        return cls(model, move, numbers)


class MovedConfig(DescentConfig, MethodConfig):
    """Options of a rival: those of the descent, and those of its move."""

    speakers: ClassVar[type[MovedSpeakers]]

    @model_validator(mode="after")
    def _in_float32(self) -> Self:
        if self.bfloat16:
            raise ValueError("bfloat16: the numbers differ from their start by less than it resolves; leave it out")
        return self

    @property
    @abstractmethod
    def move(self) -> Move:
        """What the numbers change."""

    def make(self, folder: Path | None) -> Moved:
        """The method with these options."""
        return Moved(self)


class Moved:
    """A rival as an adaptation method.

    Args:
        config: Options of the method.
    """

    def __init__(self, config: MovedConfig) -> None:
        self.config = config

    def estimate(self, model: AcousticModel, speakers: Mapping[str, SpeakerData], seed: int) -> MovedSpeakers:
        """Estimate the numbers of all speakers, several at a time; all that are estimated stay in memory.

        A speaker whose frames all have weight 0, or whose numbers become infinite or not numbers, stays unadapted; a
        warning names them.

        Args:
            model: The network; it comes back unchanged.
            speakers: Each speaker's data.
            seed: Seeds the numbers' start, if it is random, and the order of each speaker's frames, which does not
                depend on the other speakers.

        Raises:
            SiteError: The network does not have what the numbers would change.
            AlignmentError: A speaker's targets or features do not fit the network.
        """
        network, move = model.feed_forward(), self.config.move
        start = move.start(network, seed)
        each = sum(values.numel() for values in start.values()) * BYTES_PER_NUMBER
        at_once, names = max(1, NUMBERS_BYTES // max(1, each)), list(speakers)
        numbers: dict[str, Numbers] = {}
        for first in range(0, len(names), at_once):
            group = names[first : first + at_once]
            moved = MovedNetwork(network, move, start, group)
            Descent(self.config).move(moved, model, {name: speakers[name] for name in group}, seed)
            numbers |= {name: moved.numbers(name) for name in group}
        return self.config.speakers(model, move, numbers)


class MovedNetwork:
    """Speakers' numbers in a network; a ``Movable``.

    Args:
        network: The network.
        move: What the numbers change.
        start: The numbers that everybody begins with.
        speakers: Names of the speakers.
    """

    def __init__(self, network: FeedForward, move: Move, start: Numbers, speakers: Sequence[str]) -> None:
        self._network, self._move = network, move
        self._start = {part: values.to(network.device) for part, values in start.items()}
        self._row = {name: row for row, name in enumerate(speakers, start=1)}
        # Row 0 stays at the start.
        self._tables = {
            part: RowTable(values.flatten().repeat(len(speakers) + 1, 1)) for part, values in self._start.items()
        }
        self.device, self.width = network.device, network.inputs

    def psi(self, spliced: Tensor) -> Tensor:
        """The spliced features themselves; see ``Movable``."""
        return spliced

    def logits(self, psi: Tensor, speakers: Sequence[str]) -> Tensor:
        """Logits with the speakers' numbers; see ``Movable``."""
        blocks = psi.unflatten(0, (len(speakers), -1))
        return self._move.logits(self._network, self._of(speakers), blocks).flatten(0, 1)

    def unadapted(self, psi: Tensor) -> Tensor:
        """Logits of the network as it is; see ``Movable``."""
        own = {part: values.unsqueeze(0) for part, values in self._start.items()}
        with torch.no_grad():
            return self._move.logits(self._network, own, psi.unsqueeze(0))[0]

    def optimizer(self, name: str, learning_rate: float) -> torch.optim.Optimizer:
        """An optimizer of the numbers; see ``Movable``."""
        return OPTIMIZERS[name](list(self._tables.values()), lr=learning_rate)

    def distance(self, speakers: Sequence[str]) -> Tensor:
        """Square of the distance of each speaker's numbers from their start, shape (N,)."""
        own = self._of(speakers)
        parts = [(own[part] - values).square().flatten(1).sum(1) for part, values in self._start.items()]
        return torch.stack(parts).sum(0)

    def put_back_diverged(self, speakers: Sequence[str]) -> None:
        """Set speakers whose numbers are not finite back to their start; see ``Movable``."""
        finite = torch.stack([table.detach().isfinite().all(1) for table in self._tables.values()]).all(0)
        diverged = [name for name in speakers if not finite[self._row[name]]]
        warn_diverged(diverged, len(speakers))
        with torch.no_grad():
            for table in self._tables.values():
                table[[self._row[name] for name in diverged]] = table[0].clone()

    def numbers(self, speaker: str) -> dict[str, Tensor]:
        """The numbers of a speaker."""
        row = self._row[speaker]
        # Copied: a view would keep the tables of all speakers alive.
        rows = {part: table.detach()[row].clone() for part, table in self._tables.items()}
        return {part: rows[part].view(values.shape) for part, values in self._start.items()}

    def _of(self, speakers: Sequence[str]) -> dict[str, Tensor]:
        rows = torch.tensor([self._row[name] for name in speakers], device=self.device)
        return {
            part: functional.embedding(rows, self._tables[part], sparse=True).unflatten(1, values.shape)
            for part, values in self._start.items()
        }
