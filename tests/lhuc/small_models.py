"""Small models of several kinds; in a module of their own, so that they can be pickled."""

import warnings

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units)
        self.activation = nn.Sigmoid()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.linear(x)))


class Mlp(nn.Module):
    """(B, 5) -> (B, 3), two hidden layers of 8 and 6."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.ModuleList([Layer(5, 8), Layer(8, 6)])
        self.output = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = layer(x)
        return self.output(x)


class Recurrent(nn.Module):
    """(T, B, 5) -> (T, B, 3), or (B, T, .) with batch_first."""

    def __init__(self, batch_first: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 4, num_layers=2, bidirectional=True, dropout=0.5, batch_first=batch_first)
        self.output = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lstm(x)[0])


class Cnn(nn.Module):
    """(B, 1, 8, 8) -> (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.upper = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(2))
        self.output = nn.Linear(6 * 2 * 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.upper(self.lower(x)).flatten(1))


class Counted(nn.Linear):
    """A layer with an extra state."""

    extra: object = 0

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def quantized(*layers: nn.Module) -> nn.Module:
    """A model whose linear and recurrent layers hold packed weights of 8 bits."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(*layers), {nn.Linear, nn.LSTM}, dtype=torch.qint8)


def seeded(factory, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory().double()
