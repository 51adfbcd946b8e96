"""A toy of speech: tokens are patterns of features, speakers change their loudness; a small CTC network learns it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from lhuc_asr.lhuc import Batch, GreedyCtc, SpeakerBank
from lhuc_asr.lhuc.hypotheses import edits
from lhuc_asr.lhuc.site import Site

CLASSES, FEATURES, UNITS = 9, 12, 32
SITES = (Site("front", FEATURES, -1), Site("lower", UNITS, 1), Site("upper", UNITS, 1))


class Toy(nn.Module):
    """Features (B, T, 12) -> logits (B, T, 9), class 0 the blank."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Identity()
        self.first, self.lower = nn.Conv1d(FEATURES, UNITS, 5, padding=2), nn.ReLU()
        self.second, self.upper = nn.Conv1d(UNITS, UNITS, 3, padding=1), nn.ReLU()
        self.output = nn.Linear(UNITS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.lower(self.first(self.front(x).transpose(1, 2)))
        return self.output(self.upper(self.second(hidden)).transpose(1, 2))


@dataclass(frozen=True)
class Speech:
    """Recordings of one speaker, padded: features (B, T, 12), lengths (B,), and what was said."""

    features: Tensor
    lengths: Tensor
    said: list[list[int]]

    def batch(self, speaker: str) -> Batch:
        return Batch(self.features, [speaker] * len(self.said), self.lengths, self.lengths)

    def error(self, model: nn.Module) -> float:
        """Token error rate of the model as it is now."""
        with torch.no_grad():
            heard = GreedyCtc()(model(self.features), self.lengths)
        return sum(map(edits, heard, self.said)) / sum(map(len, self.said))


class World:
    """Tokens' patterns, and speakers who say them.

    Args:
        seed: Seed of everything.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.patterns = self.normal(CLASSES, FEATURES)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=self.generator))

    def speaker(self, loudness: float, tilt: float = 0.25, mixing: float = 0.0) -> tuple[Tensor, Tensor]:
        """A map and an offset of features."""
        gains = torch.diag(loudness * torch.exp(tilt * self.normal(FEATURES)))
        mixed = mixing * self.normal(FEATURES, FEATURES) / FEATURES**0.5
        return gains + mixed, 0.1 * self.normal(FEATURES)

    def speech(self, speaker: tuple[Tensor, Tensor], recordings: int, frames: int = 40) -> Speech:
        """Recordings of five to eight tokens, padded to a number of frames."""
        gains, offset = speaker
        spoken, said = [], []
        for _ in range(recordings):
            tokens = [self.integer(1, CLASSES) for _ in range(self.integer(5, 9))]
            path: list[int] = []
            for token in tokens:
                path += [token] * self.integer(2, 5) + [0] * self.integer(0, 3)
            clean = self.patterns[torch.tensor(path[:frames])] @ gains.T + offset
            spoken.append(clean + 0.6 * self.normal(*clean.shape))
            said.append(tokens)
        lengths = torch.tensor([len(each) for each in spoken])
        padded = pad_sequence([torch.zeros(frames, FEATURES), *spoken], batch_first=True)[1:]
        return Speech(padded, lengths, said)


def trained(world: World, speakers: int = 24, epochs: int = 30) -> Toy:
    """A network that has learned speakers who hardly differ."""
    speech = [world.speech(world.speaker(1.0, tilt=0.15), 12) for _ in range(speakers)]
    features = torch.cat([each.features for each in speech])
    lengths = torch.cat([each.lengths for each in speech])
    said = [torch.tensor(tokens) for each in speech for tokens in each.said]
    counts, labels = torch.tensor([len(tokens) for tokens in said]), pad_sequence(said, batch_first=True)
    with torch.random.fork_rng():
        torch.manual_seed(world.generator.initial_seed())
        model = Toy()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(epochs):
        for batch in torch.randperm(len(features), generator=world.generator).split(48):
            log_p = model(features[batch]).log_softmax(2).transpose(0, 1)
            optimizer.zero_grad()
            functional.ctc_loss(log_p, labels[batch], lengths[batch], counts[batch]).backward()
            optimizer.step()
    return model.eval()


def attached(model: Toy, *speakers: str) -> SpeakerBank:
    bank = SpeakerBank(model, SITES, speakers)
    bank.attach()
    return bank
