"""LHUC against PEFT's IA3 and LoRA on one wav2vec 2.0: a step, memory, numbers kept a speaker, mixed batches.

The model has the sizes of wav2vec 2.0 base (94 million numbers) and random weights: what is measured does not depend on
them. Each method adapts eight speakers, one utterance of two seconds each. LHUC and IA3 scale the same 3,072 units in
each layer's feed-forward part; LoRA has rank 8 at the queries and values, as its paper has it.

A step: forward, backward, and the optimizer, of a batch that is one speaker's, because PEFT trains one adapter at a
time. Its memory is what the forward pass keeps for the backward pass. A mixed batch: forward only, a speaker for each
utterance. IA3 has no mixed batches; it runs the utterances one by one, with its adapter set before each.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod

import torch
from peft import IA3Config, LoraConfig, get_peft_model
from timing import Turns, clock_of, show
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from lhuc_asr.lhuc import attach, frozen

SPEAKERS, SAMPLES = 8, 32_000
NAMES = [f"speaker{n}" for n in range(SPEAKERS)]


class Method(ABC):
    """A way to adapt the model to ``NAMES``."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(1)
        self.model = wav2vec2().to(device).eval()
        self.x = torch.randn(SPEAKERS, SAMPLES, device=device)

    @abstractmethod
    def step(self) -> None:
        """Train the first speaker for one step, on the batch."""

    @abstractmethod
    def mixed(self) -> Tensor:
        """The outputs of the batch, each utterance for its own speaker."""

    @abstractmethod
    def numbers(self) -> int:
        """How many numbers are kept a speaker."""

    def plain(self) -> Tensor:
        """The outputs without adaptation."""
        with torch.no_grad():
            outputs: Tensor = self.model(self.x).last_hidden_state
        return outputs


class Lhuc(Method):
    """Amplitudes at the input of each layer's second linear map."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.bank = attach(self.model, inputs_of="**.output_dense", speakers=NAMES, example=self.x[:2])
        self.optimizer = self.bank.optimizer("adam", lr=0.001)

    def step(self) -> None:
        """See Method."""
        self.optimizer.zero_grad()
        with frozen(self.model), self.bank.speaker(NAMES[0]):
            self.model(self.x).last_hidden_state.square().mean().backward()
        self.optimizer.step()

    def mixed(self) -> Tensor:
        """See Method."""
        with torch.no_grad(), self.bank.rows(NAMES):
            outputs: Tensor = self.model(self.x).last_hidden_state
        return outputs

    def numbers(self) -> int:
        """See Method."""
        return self.bank.numbers


class Peft(Method):
    """An adapter of PEFT for each speaker."""

    def __init__(self, device: torch.device, config: IA3Config | LoraConfig) -> None:
        super().__init__(device)
        self.adapters = get_peft_model(self.model, config, adapter_name=NAMES[0])
        for name in NAMES[1:]:
            self.adapters.add_adapter(name, config)
        self.adapters.set_adapter(NAMES[0])
        self.model = self.adapters.eval()
        self.optimizer = torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], lr=0.001)

    def step(self) -> None:
        """See Method."""
        self.optimizer.zero_grad()
        self.model(self.x).last_hidden_state.square().mean().backward()
        self.optimizer.step()

    def numbers(self) -> int:
        """See Method."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


class Ia3(Peft):
    """Scales at the same units."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, IA3Config(target_modules=["output_dense"], feedforward_modules=["output_dense"]))

    def mixed(self) -> Tensor:
        """One by one."""
        outputs = []
        with torch.no_grad():
            for place, name in enumerate(NAMES):
                self.adapters.set_adapter(name)
                outputs.append(self.model(self.x[place : place + 1]).last_hidden_state)
        self.adapters.set_adapter(NAMES[0])
        return torch.cat(outputs)


class Lora(Peft):
    """Matrices of rank 8 at queries and values."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]))

    def mixed(self) -> Tensor:
        """In one batch."""
        with torch.no_grad():
            outputs: Tensor = self.model(self.x, adapter_names=NAMES).last_hidden_state
        return outputs


def wav2vec2() -> nn.Module:
    """A model of random weights."""
    return Wav2Vec2Model(Wav2Vec2Config())


METHODS: dict[str, type[Method]] = {"LHUC": Lhuc, "IA3": Ia3, "LoRA, rank 8": Lora}


def main() -> None:
    """Measure all methods in turns, on the CPU with one thread unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    methods = {name: method(device) for name, method in METHODS.items()}
    clock = clock_of(device, arguments.threads)
    steps = Turns({name: method.step for name, method in methods.items()}, 20.0, clock)
    mixed = Turns(
        {"unadapted": Lhuc(device).plain} | {name: method.mixed for name, method in methods.items()}, 20.0, clock
    )
    rows = [
        [
            name,
            f"{method.numbers():,}",
            f"{1000 * steps.of(name).median:.3g}",
            steps.ratio(name, "LHUC"),
            f"{kept_for_backward(method):.0f}",
            f"{1000 * mixed.of(name).median:.3g}",
            mixed.ratio(name, "unadapted"),
        ]
        for name, method in methods.items()
    ]
    show(
        f"wav2vec 2.0 base, {SPEAKERS} utterances of {SAMPLES / 16000:g} s, {device}, {arguments.threads} thread(s)",
        ["method", "numbers", "step, ms", "over LHUC", "kept, MB", "mixed, ms", "over unadapted"],
        rows,
    )


def kept_for_backward(method: Method) -> float:
    """Megabytes that the forward pass of a step keeps for its backward pass, beside the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in method.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        method.step()
    return sum(kept.values()) / 2**20


if __name__ == "__main__":
    main()
