"""The state of a training: everything that the next epoch depends on, in one file.

The file has the network, the optimizer's momentum, the companion, newbob's state and, where epochs are averaged, the
weights of the epochs before the last kept one. It is replaced whole, so a killed run finds the last complete one. A
second file beside it is the state within an epoch, and lasts until its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.errors import CheckpointError, ConfigError
from lhuc_asr.base.ranks import ranks
from lhuc_asr.base.tensors import check_tensors, load_tensors, save_tensors
from lhuc_asr.nnet.acoustic_model import AcousticModel
from lhuc_asr.nnet.companion import Companion
from lhuc_asr.nnet.normalisation import check_variances
from lhuc_asr.nnet.schedule import Newbob

REMEDY = "delete it to train from the beginning"
REMEDY_WITHIN = "delete it to train from the beginning of the epoch"


@dataclass(frozen=True)
class Progress:
    """How far an epoch is.

    Attributes:
        place: Tensors, by name, that say where its mini-batches and random numbers are.
        loss: Sum of the loss over its frames so far.
        frames: Number of these frames.
    """

    place: Mapping[str, Tensor]
    loss: float
    frames: int


class TrainingState:
    """A network in training, and the file of its state.

    Args:
        path: The file.
        model: The network.
        optimizer: Its optimizer.
        companion: Companion that is trained together with the network.
        earlier_epochs: Number of kept epochs before the last one whose weights are remembered.

    Attributes:
        model: The network.
        optimizer: Its optimizer.
        companion: Its companion.
        path_within: The file of the state within an epoch.
        earlier: What was learned before each of the last kept epochs, oldest first, on the CPU.
    """

    def __init__(
        self,
        path: Path,
        model: AcousticModel,
        optimizer: torch.optim.SGD,
        companion: Companion,
        earlier_epochs: int,
    ) -> None:
        self.model, self.optimizer, self.companion = model, optimizer, companion
        self.earlier: deque[dict[str, Tensor]] = deque(maxlen=earlier_epochs)
        self._path, self.path_within = path, path.with_name(f"{path.stem}-within{path.suffix}")
        self._before: dict[str, Tensor] = {}

    @property
    def exists(self) -> bool:
        """Whether there is a file to resume from."""
        return ranks().of_first(self._path.exists())

    def begin_epoch(self) -> None:
        """Remember what was learned before an epoch."""
        if self.earlier.maxlen:
            self._before = self.learned()

    def keep_epoch(self) -> None:
        """Add what was learned before the epoch to ``earlier``."""
        if self.earlier.maxlen:
            self.earlier.append(self._before)

    def learned(self) -> dict[str, Tensor]:
        """A copy, on the CPU, of the weights and of what the companion has learned, by name."""
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._parameters().items()}

    def learn(self, learned: Mapping[str, Tensor]) -> None:
        """Overwrite the weights and what the companion has learned."""
        with torch.no_grad():
            for name, tensor in self._parameters().items():
                tensor.copy_(learned[name])

    def save(self, newbob: Newbob) -> None:
        """Write the file, whole or not at all; of several processes the first does, and the others wait for it."""
        if ranks().is_first:
            tensors = self._now()
            for number, learned in enumerate(self.earlier):
                tensors |= {f"earlier.{number}.{name}": tensor for name, tensor in learned.items()}
            save_tensors(self._path, tensors, {"newbob": asdict(newbob)})
            self.path_within.unlink(missing_ok=True)
        ranks().wait()

    def save_within(self, newbob: Newbob, progress: Progress) -> None:
        """Write the file of the state within an epoch, whole or not at all; of several processes the first does."""
        if ranks().is_first:
            tensors = self._now() | {f"place.{name}": tensor for name, tensor in progress.place.items()}
            figures = {"loss": progress.loss, "frames": progress.frames}
            save_tensors(self.path_within, tensors, {"newbob": asdict(newbob), **figures})
        ranks().wait()

    def restore_within(self, newbob: Newbob) -> Progress | None:
        """Read the state within an epoch into the network, its optimizer and the companion.

        Args:
            newbob: The schedule's state before the epoch.

        Returns:
            How far the epoch is; None where it has not begun.

        Raises:
            CheckpointError: The file is damaged, or the state of another network.
        """
        if not ranks().of_first(self.path_within.exists()):
            return None
        tensors, tree = load_tensors(self.path_within, REMEDY_WITHIN)
        with _this_network(self.path_within, REMEDY_WITHIN) as source:
            description = parse_config(_DescriptionWithin, tree, source)
            if description.newbob != newbob:  # of an earlier epoch, whose end was written before this was deleted
                return None
            own, momentum = self._checked(tensors, source, REMEDY_WITHIN)
            place = {name: tensor.clone() for name, tensor in _named(tensors, "place.").items()}
        self._learn_all(own, momentum)
        return Progress(place, description.loss, description.frames)

    def _now(self) -> dict[str, Tensor]:
        """The network, its momentum and the companion."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        return tensors | {f"companion.{name}": tensor for name, tensor in self.companion.state().items()}

    def restore(self) -> Newbob:
        """Read the file into the network, its optimizer, the companion and ``earlier``.

        Raises:
            CheckpointError: The file is damaged, or the state of another network.
        """
        tensors, tree = load_tensors(self._path)
        with _this_network(self._path, REMEDY) as source:
            newbob = parse_config(_Description, tree, source).newbob
            own, momentum = self._checked(tensors, source, REMEDY)
            earlier = self._earlier_in(_named(tensors, "earlier."), source)
        self._learn_all(own, momentum)
        self.earlier.clear()
        self.earlier.extend(earlier)
        return newbob

    def _checked(
        self, tensors: Mapping[str, Tensor], source: str, remedy: str
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights and the momentum of this network; the companion is restored."""
        own = _named(tensors, "model.")
        check_tensors(source, own, {name: tuple(t.shape) for name, t in self.model.state_dict().items()}, remedy)
        check_variances(source, own, remedy)
        momentum = _named(tensors, "momentum.")
        shapes = {name: tuple(parameter.shape) for name, parameter in self.model.named_parameters()}
        check_tensors(source, momentum, {name: shapes.get(name, ()) for name in momentum}, remedy)
        self.companion.restore(_named(tensors, "companion."))
        return own, momentum

    def _learn_all(self, own: Mapping[str, Tensor], momentum: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(own)
        for name, parameter in self.model.named_parameters():
            if name in momentum:
                # A copy: the file that it is mapped from is replaced.
                self.optimizer.state[parameter]["momentum_buffer"] = momentum[name].to(parameter.device, copy=True)
            else:  # before the first epoch
                self.optimizer.state[parameter].pop("momentum_buffer", None)

    def _parameters(self) -> dict[str, Tensor]:
        model = {f"model.{name}": parameter for name, parameter in self.model.named_parameters()}
        return model | {f"companion.{name}": tensor for name, tensor in self.companion.learned().items()}

    def _earlier_in(self, tensors: Mapping[str, Tensor], source: str) -> list[dict[str, Tensor]]:
        shapes = {name: tuple(tensor.shape) for name, tensor in self._parameters().items()}
        count = len(tensors) // len(shapes)
        check_tensors(source, tensors, {f"{n}.{name}": shapes[name] for n in range(count) for name in shapes}, REMEDY)
        # A copy: the file that the tensors are mapped from is replaced after the next epoch.
        return [{name: tensors[f"{n}.{name}"].clone() for name in shapes} for n in range(count)]


class _Description(StrictModel):
    """Description of a state's file."""

    newbob: Newbob


class _DescriptionWithin(_Description):
    """Description of the file of the state within an epoch."""

    loss: float = Field(ge=0.0, le=1e18)
    frames: int = Field(ge=0, le=10**15)


@contextmanager
def _this_network(path: Path, remedy: str) -> Iterator[str]:
    """Turn what is raised over the state of another network into one error; gives the name of the source for others."""
    source = f"{path}: the state of another network"
    try:
        yield source
    except (ConfigError, KeyError, RuntimeError) as error:
        problem = str(error) if isinstance(error, ConfigError) else f"{source} ({error})"
        raise CheckpointError(f"{problem}; {remedy}") from error


def mean_of(epochs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean, in each tensor's type, of what was learned in some epochs."""
    return {name: torch.stack([learned[name] for learned in epochs]).mean(0) for name in epochs[0]}


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
