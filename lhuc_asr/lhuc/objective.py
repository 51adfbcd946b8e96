"""Objectives: what the rows of a bank are trained to make small.

An objective is a function from a model's output and its targets to a loss. It sees some elements of a batch, frames
or whole utterances, and sums over them; dividing by the size of a batch, adding a prior and taking a step are the
caller's. Supervision that is not frames is an objective of its own, with targets of its own: CTC over utterances, a
ranking loss over items, the cross-entropy of an attention decoder.

Targets are tensors whose first axis counts the elements. So a caller can select, join and move the targets of any
objective without knowing which one it is:

    batch = join_targets([alice.select(frames), bob.select(others)]).to(device)
    with bank.blocks(["alice", "bob"]):
        loss = objective(model(x), batch)

The first objective is the cross-entropy of frames, as in equation 9 of the paper, with soft targets, weights and the
regularisation of Yu et al.

Source: D. Yu, K. Yao, H. Su, G. Li, F. Seide, "KL-Divergence Regularized Deep Neural Network Adaptation for Improved
Large Vocabulary Speech Recognition", ICASSP 2013.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from lhuc_asr.base.errors import ConfigError

TargetsT = TypeVar("TargetsT", bound="Targets")
_AnyTargets = TypeVar("_AnyTargets", bound="Targets", contravariant=True)


@dataclass(frozen=True)
class Targets:
    """The supervision of some elements of a batch; subclasses add fields, all of them tensors.

    Attributes:
        weights: Weight of each element in the loss, shape (B,); 0 for an element that does not count.
    """

    weights: Tensor

    def __len__(self) -> int:
        """Number of elements, B."""
        return len(self.weights)

    def amounts(self) -> Tensor:
        """How much each element counts in the loss, shape (B,); a mean over elements divides by the sum.

        Subclasses whose elements have parts with weights of their own, as transcripts have words, count these.
        """
        return self.weights

    def select(self: TargetsT, elements: Tensor) -> TargetsT:
        """The targets of some elements, in the order given.

        Args:
            elements: Numbers of the elements, shape (N,), int64.
        """
        return self._each(lambda tensor: tensor[elements.to(tensor.device)])

    def fill(self: TargetsT, count: int) -> TargetsT:
        """The targets with repetitions of the first element, of weight 0, at the end.

        Args:
            count: Number of elements afterwards, at least B.
        """
        missing = count - len(self)
        if not missing:
            return self
        elements = functional.pad(torch.arange(len(self)), (0, missing))
        return replace(self.select(elements), weights=functional.pad(self.weights, (0, missing)))

    def to(self: TargetsT, device: torch.device | str) -> TargetsT:
        """The targets on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self: TargetsT, change: Callable[[Tensor], Tensor]) -> TargetsT:
        return replace(self, **{field.name: change(getattr(self, field.name)) for field in fields(self)})


def join_targets(parts: Sequence[TargetsT]) -> TargetsT:
    """The targets of several groups of elements, one group after the other.

    Args:
        parts: At least one, all of one type.
    """
    first = parts[0]
    joined = {field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(first)}
    return replace(first, **joined)


class Objective(Protocol[_AnyTargets]):
    """A differentiable loss of a model's output."""

    def __call__(self, output: Tensor, targets: _AnyTargets, /) -> Tensor:
        """The loss.

        Args:
            output: The model's output for the elements, shape (B, ...).
            targets: Their targets.

        Returns:
            A scalar: the sum over the elements, each times its weight. It is not the mean: a caller that wants a
            mean divides by the number that it averages over.
        """


@dataclass(frozen=True)
class CandidateTargets(Targets):
    """The targets of frames: the posteriors of a few candidate classes.

    Attributes:
        classes: Candidate classes of each frame, shape (B, M), int64. In a hybrid acoustic model they are pdfs.
        posteriors: Probability of each candidate, shape (B, M); 1 for the only candidate of a hard target.
        reference: Posteriors of all classes that the targets are drawn towards, shape (B, K), or (B, 0) if the
            objective uses none.
    """

    classes: Tensor
    posteriors: Tensor
    reference: Tensor


@dataclass(frozen=True)
class FrameCrossEntropy:
    """The cross-entropy of frames, an Objective.

    With weights w_t, candidates' posteriors q_t, reference posteriors p_t(r_0) and the model's posteriors p_t(r),
    the loss is

        sum_t w_t ((1 - rho) H(q_t, p_t(r)) + rho H(p_t(r_0), p_t(r)))

    Attributes:
        kl_weight: rho, the share of the reference in the targets. With the model's own output with row 0 as
            reference, a larger rho holds a speaker's output closer to that of row 0.

    Raises:
        ConfigError: ``kl_weight`` is outside [0, 1).

    Example:
        >>> targets = CandidateTargets(
        ...     weights=torch.tensor([1.0, 0.5]),
        ...     classes=torch.tensor([[0], [2]]),
        ...     posteriors=torch.ones(2, 1),
        ...     reference=torch.empty(2, 0),
        ... )
        >>> FrameCrossEntropy()(torch.zeros(2, 3), targets)  # 1.5 log 3
        tensor(1.6479)
    """

    kl_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.kl_weight < 1.0:
            raise ConfigError(f"kl_weight {self.kl_weight}: expected at least 0 and less than 1")

    def __call__(self, output: Tensor, targets: CandidateTargets, /) -> Tensor:
        """The loss.

        Args:
            output: Logits, shape (B, K).
            targets: The frames' targets.

        Returns:
            A scalar: the sum over frames.
        """
        rho, weights = self.kl_weight, targets.weights
        log_posteriors = torch.log_softmax(output, dim=1).gather(1, targets.classes)
        loss = (1 - rho) * -((targets.posteriors * log_posteriors).sum(1) * weights).sum()
        if rho:
            cross_entropies = functional.cross_entropy(output, targets.reference, reduction="none")
            loss = loss + rho * (cross_entropies * weights).sum()
        return loss
