"""The zoo: how each model is built, what goes in, where its amplitudes go, and which contracts it cannot keep."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import zoo_models
from torch import Tensor, nn

# Arguments of a model's call, by position or by name.
Batch = tuple[Tensor, ...] | dict[str, Tensor]


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: Its name in the table.
        build: Makes it, with weights from torch's global generator.
        batch: A batch of n elements, from a generator.
        where: The arguments of ``attach`` that say where the amplitudes go, as docs/any_model.md would have it.
        scores: What the model returns -> the tensor that is compared, its batch along the first axis.
        batch_axis: The axis of the batch in what goes in.
        library: The library that the model is from; its tests are skipped where that is not installed.
        measured: Whether ``attach`` is given an example.
        rounding: Error that the model itself makes when elements join a batch, relative to the largest score.
        refused: The contracts that it cannot keep: the package says so by an error that names the site.
        impossible: Contract -> a part of torch's error, where the model does not even run without amplitudes.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[int, torch.Generator], Batch]
    where: Mapping[str, Any]
    scores: Callable[[Any], Tensor] = lambda output: output
    batch_axis: int = 0
    library: str = "torch"
    measured: bool = True
    rounding: float = 1e-5
    refused: tuple[str, ...] = ()
    impossible: Mapping[str, str] = field(default_factory=dict)

    def model(self) -> nn.Module:
        """A model of its own, in evaluation mode, always with the same weights."""
        return copy.deepcopy(_built(self.name))

    def inputs(self, elements: int) -> Batch:
        """A batch, always the same one."""
        return self.batch(elements, torch.Generator().manual_seed(1))

    def run(self, model: Callable[..., Any], batch: Batch, **options: Any) -> Tensor:
        """The scores of a batch, its elements along the first axis."""
        return self.scores(model(**batch, **options) if isinstance(batch, dict) else model(*batch, **options))

    def elements(self, batch: Batch, numbers: Sequence[int]) -> Batch:
        """Some elements of a batch, as a batch of their own."""
        chosen = torch.tensor(numbers)
        if isinstance(batch, dict):
            return {name: value.index_select(self.batch_axis, chosen) for name, value in batch.items()}
        return tuple(value.index_select(self.batch_axis, chosen) for value in batch)


@functools.cache
def _built(name: str) -> nn.Module:
    entry = BY_NAME[name]
    pytest.importorskip(entry.library)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = entry.build().eval()
        # Not 0 and 1: as they are made, a normalisation that is off would not show.
        for tensor in (
            t for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for t in m.buffers()
        ):
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.rand_like(tensor))
    return model


def _floats(*shape: int) -> Callable[[int, torch.Generator], Batch]:
    return lambda n, generator: (torch.randn(n, *shape, generator=generator),)


def _lengths(n: int, longest: int) -> Tensor:
    return longest - 2 * torch.arange(n) % longest


def _padded(n: int, generator: torch.Generator) -> Batch:
    return torch.randn(n, 9, 8, generator=generator), _lengths(n, 9)


def _samples_and_lengths(n: int, generator: torch.Generator) -> Batch:
    return torch.randn(n, 400, generator=generator), 400 - 50 * torch.arange(n) % 400


def _samples_and_mask(n: int, generator: torch.Generator) -> Batch:
    samples, lengths = _samples_and_lengths(n, generator)
    mask = (torch.arange(400) < lengths[:, None]).long()
    return {"input_values": samples * mask, "attention_mask": mask}


def _samples(n: int, generator: torch.Generator) -> Batch:
    return {"input_values": torch.randn(n, 400, generator=generator)}


def _features_and_lengths(n: int, generator: torch.Generator) -> Batch:
    return torch.randn(n, 9, 8, generator=generator), torch.full((n,), 9)


def _spectrogram_and_tokens(n: int, generator: torch.Generator) -> Batch:
    spectrogram = torch.randn(n, 80, 40, generator=generator)
    return spectrogram, torch.randint(3, 50, (n, 5), generator=generator)


def _named_spectrogram_and_tokens(n: int, generator: torch.Generator) -> Batch:
    return dict(zip(("input_features", "decoder_input_ids"), _spectrogram_and_tokens(n, generator), strict=True))


ZOO = (
    Entry(
        "wav2vec 2.0 (torchaudio)",
        functools.partial(zoo_models.torchaudio_wav2vec2, large=False),
        _samples_and_lengths,
        {"inputs_of": "**.output_dense"},
        scores=lambda output: output[0],
        library="torchaudio",
    ),
    Entry(
        "HuBERT (torchaudio)",
        functools.partial(zoo_models.torchaudio_wav2vec2, large=True),
        _samples_and_lengths,
        {"inputs_of": "**.output_dense"},
        scores=lambda output: output[0],
        library="torchaudio",
    ),
    Entry(
        "wav2vec 2.0 (transformers)",
        zoo_models.transformers_wav2vec2,
        _samples_and_mask,
        {"inputs_of": "**.output_dense"},
        scores=lambda output: output.logits,
        library="transformers",
    ),
    Entry(
        "HuBERT (transformers)",
        zoo_models.transformers_hubert,
        _samples,
        {"sites": "encoder", "field": "last_hidden_state"},
        scores=lambda output: output.last_hidden_state,
        library="transformers",
        refused=("fold",),
    ),
    Entry(
        "Conformer (torchaudio)",
        zoo_models.torchaudio_conformer,
        _features_and_lengths,
        {"sites": nn.SiLU},
        scores=lambda output: output[0],
        library="torchaudio",
        refused=("fold",),
    ),
    Entry(
        "wav2vec 2.0 Conformer (transformers)",
        zoo_models.transformers_conformer,
        _samples,
        {"inputs_of": ["**.output_dense", "**.pointwise_conv2"]},
        scores=lambda output: output.logits,
        library="transformers",
    ),
    Entry(
        "Whisper (openai-whisper)",
        zoo_models.openai_whisper,
        _spectrogram_and_tokens,
        {"inputs_of": "**.mlp.2"},
        library="whisper",
        impossible={"processes": "No support for sparse tensors"},
    ),
    Entry(
        "Whisper (transformers)",
        zoo_models.transformers_whisper,
        _named_spectrogram_and_tokens,
        {"inputs_of": "**.fc2"},
        scores=lambda output: output.logits,
        library="transformers",
    ),
    Entry("LSTM", zoo_models.Lstm, _floats(9, 8), {"sites": "lstm"}),
    Entry("GRU", zoo_models.Gru, _floats(9, 8), {"sites": ["norm", "upper"]}, refused=("fold",)),
    Entry("TDNN", zoo_models.tdnn, _floats(8, 20), {"sites": nn.ReLU}, refused=("fold",)),
    Entry("CNN, 1-D", zoo_models.cnn_1d, _floats(8, 24), {"sites": nn.MaxPool1d}),
    Entry("CNN, 2-D", zoo_models.Cnn2d, _floats(1, 12, 8), {"sites": nn.MaxPool2d}),
    Entry("nn.TransformerEncoder with padding", zoo_models.Padded, _padded, {"inputs_of": "**.linear2"}),
    Entry(
        "time first",
        zoo_models.TimeFirst,
        lambda n, generator: (torch.randn(9, n, 8, generator=generator),),
        {"sites": ["activation", "lstm"], "inputs_of": "scores"},
        scores=lambda output: output.transpose(0, 1),
        batch_axis=1,
        refused=("fold",),
    ),
    Entry(
        "a module that returns a dict",
        zoo_models.Dict,
        _floats(9, 8),
        {"sites": "encoder", "field": "hidden", "batch_dim": 0},
        scores=lambda output: output["scores"],
        refused=("fold",),
    ),
    Entry(
        "int8 (torch.ao, dynamic)",
        zoo_models.int8,
        _floats(9, 8),
        {"sites": "lstm"},
        measured=False,
        rounding=0.05,
        refused=("freeze", "fold", "checkpoint", "processes"),
        impossible={"autocast": "expected scalar type Float but found BFloat16"},
    ),
)
BY_NAME = {entry.name: entry for entry in ZOO}
