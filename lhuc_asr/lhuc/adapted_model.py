"""A model and its bank as one module, for what takes modules: DDP, trainers, checkpoints of a whole training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lhuc_asr.base.errors import SiteError
from lhuc_asr.lhuc.bank import SpeakerBank
from lhuc_asr.lhuc.names import inner


class AdaptedModel(nn.Module):
    """A model whose call says whose amplitudes count.

    Its parameters are the model's and the bank's, its state dict has both, and a deep copy is a model with a bank of
    its own. Where gradients are to be clipped, scaled or reduced over processes, make the bank's dense:
    ``bank.sparse_gradients = False``.

    Args:
        model: The model.
        bank: The bank that is attached to it.

    Attributes:
        model: The model.
        bank: The bank.

    Raises:
        SiteError: The bank belongs to another model, or is detached.

    Example:
        >>> import torch
        >>> from lhuc_asr.lhuc import attach
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> adapted = AdaptedModel(model, attach(model, nn.ReLU, ["alice", "bob"]))
        >>> adapted(torch.zeros(3, 4), speakers=["alice", "bob", "bob"]).shape
        torch.Size([3, 3])
    """

    def __init__(self, model: nn.Module, bank: SpeakerBank) -> None:
        super().__init__()
        if bank.model is not inner(model) or not bank.attached:
            raise SiteError("the bank is detached, or of another model; attach it to this one")
        self.model = model
        self.bank = bank

    def forward(self, *args: Any, speakers: str | Sequence[str] | Tensor | None = None, **kwargs: Any) -> Any:
        """The model's output.

        Args:
            *args: The model's.
            speakers: A name for the whole batch; names or rows for its elements, as ``bank.rows`` takes them; None for
                what is selected already, or row 0.
            **kwargs: The model's.

        Raises:
            SpeakerError: The bank does not know a speaker, or a row is not finite.
        """
        if speakers is None:
            return self.model(*args, **kwargs)
        with self.bank.speaker(speakers) if isinstance(speakers, str) else self.bank.rows(speakers):
            return self.model(*args, **kwargs)
