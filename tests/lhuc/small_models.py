"""Small models of three kinds; in a module of their own, so that they can be pickled."""

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


def seeded(factory, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory().double()
