"""The time-delay network against torch's dilated convolutions over a whole utterance, and its positions by hand."""

import pytest
import torch
from small_networks import DIMENSION, PDFS, SMALL, UNITS, lively
from torch.nn import functional

from lhuc_asr.base.config import parse_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.features.context import Context
from lhuc_asr.nnet.tdnn import TdnnConfig, needed_positions

FRAMES = 40
# Evenly spaced offsets, as torch's convolutions have: first offset, spacing and number of each layer.
EVEN = (((-2, 1, 5), (-1, 3, 2), (-3, 3, 3), (-7, 9, 2)), ((0, 1, 3), (-2, 2, 3)), ((-1, 1, 1), (-1, 2, 2), (2, 1, 1)))


def even_offsets(layers: tuple[tuple[int, int, int], ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(range(first, first + spacing * count, spacing)) for first, spacing, count in layers)


def features_of(frames: int = FRAMES, dimension: int = DIMENSION) -> torch.Tensor:
    return torch.randn(frames, dimension, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def convolved(model, layers: tuple[tuple[int, int, int], ...], features: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Logits by convolutions without padding, and the frame that the first of them belongs to."""
    hidden, first = features.T.unsqueeze(0), 0
    for layer, (begin, spacing, count) in zip(model.hidden, layers, strict=False):
        weight = layer.linear.weight.unflatten(1, (count, -1)).transpose(1, 2)  # (C', C, k)
        hidden = functional.conv1d(hidden, weight, layer.linear.bias, dilation=spacing)
        hidden = layer.activation(layer.normalisation(hidden.transpose(1, 2))).transpose(1, 2)
        first -= begin
    rows = hidden[0].T
    for layer in list(model.hidden)[len(layers) :]:
        rows = layer(rows)
    return first, model.output(rows)


@pytest.mark.parametrize("layers", EVEN)
@pytest.mark.parametrize("normalisation", [None, "batch", "layer"])
def test_spliced_frames_give_what_convolutions_give(layers, normalisation):
    shape = TdnnConfig(
        offsets=even_offsets(layers), channels=UNITS, hidden_layers=2, hidden_units=9, normalisation=normalisation
    )
    model, features = lively(shape).double(), features_of()
    logits = model(model.splicing.utterance(features))
    first, expected = convolved(model, layers, features)
    inner = range(max(shape.context.left, first), FRAMES - shape.context.right)
    assert len(inner) > 3
    torch.testing.assert_close(
        logits[inner.start : inner.stop], expected[inner.start - first : inner.stop - first], rtol=1e-12, atol=1e-12
    )


def test_uneven_offsets_are_a_sum_over_the_frames_they_name():
    """One layer by hand: at the frame t it reads t - 3, t - 1 and t + 1."""
    model = lively(TdnnConfig(offsets=((-3, -1, 1),), channels=5, hidden_layers=0)).double()
    features, linear = features_of(), model.hidden[0].linear
    logits = model(model.splicing.utterance(features))
    for t in range(3, FRAMES - 1):
        outputs = linear(torch.cat([features[t - 3], features[t - 1], features[t + 1]]))
        torch.testing.assert_close(logits[t], model.output(outputs.relu()), rtol=1e-12, atol=1e-12)


def test_a_vector_of_the_speaker_goes_into_every_position_of_the_first_layer():
    """It is then a change of the first layer's bias, the same at all positions."""
    model = lively(SMALL["tdnn, plain"], vector=3).double()
    features, vector = features_of(), torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    logits = model(model.splicing.utterance(torch.cat([features, vector.expand(FRAMES, -1)], 1)))
    plain = lively(SMALL["tdnn, plain"]).double()
    shared = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("vectors.")}
    plain.load_state_dict(shared | {"hidden.0.linear.weight": model.hidden[0].linear.weight[:, :-3]})
    with torch.no_grad():
        plain.hidden[0].linear.bias += model.hidden[0].linear.weight[:, -3:] @ vector
    torch.testing.assert_close(logits, plain(plain.splicing.utterance(features)), rtol=1e-12, atol=1e-12)
    # Nobody's vector is 0.
    nobody = model(model.splicing.utterance(features))
    zeros = torch.cat([features, torch.zeros(FRAMES, 3, dtype=torch.float64)], 1)
    assert torch.equal(nobody, model(model.splicing.utterance(zeros)))


def test_the_positions_of_the_papers_network():
    """Table 1 and figure 1 of the paper: it sees 13 frames before and 9 after, in few of the possible positions."""
    shape = TdnnConfig()
    frames, *hidden = needed_positions(shape.offsets)
    assert frames == list(range(-13, 10))
    assert hidden == [[-11, -8, -5, -2, 1, 4, 7], [-10, -4, -1, 5], [-7, 2], [0]]
    assert (shape.context, shape.site_count) == (Context(13, 9), 5)
    assert shape.splicing(40, 100).width == 23 * 40 + 100
    layers = shape.layers(shape.splicing(40, 100))
    assert [layer.inputs for layer in layers] == [5 * 40 + 100, 1024, 1024, 1024, 512]
    assert [layer.arrangement.positions for layer in layers] == [7, 4, 2, 1, 1]


@pytest.mark.parametrize(
    ("offsets", "context"),
    [
        (((-20, -10, 0), (-20, 0)), Context(40, 0)),
        (((0, 3), (0, 5)), Context(0, 8)),
        (((2, 3),), Context(0, 3)),  # the frame itself is in its window, though no layer reads it
        (((-3,), (-1,)), Context(4, 0)),
        (((-60, 0), (60,)), Context(0, 60)),
        (((0,),), Context(0, 0)),
    ],
)
def test_the_window_is_no_longer_than_what_is_read(offsets, context):
    assert TdnnConfig(offsets=offsets).context == context


def test_activations_have_an_axis_of_positions_where_there_are_several():
    model = lively(SMALL["tdnn, plain"])
    hidden, shapes = torch.zeros(5, model.splicing.width), []
    for layer in model.hidden_layers().values():
        hidden = layer(hidden)
        shapes.append(tuple(hidden.shape))
    assert shapes == [(5, 2, UNITS), (5, UNITS), (5, UNITS)]
    assert list(model.hidden_layers()) == [f"hidden.{number}.activation" for number in range(3)]


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_initialisation_is_the_generators_and_keeps_signals_alive(activation):
    shape = TdnnConfig(channels=64, hidden_layers=2, hidden_units=64, activation=activation)
    one, two = shape.make(20, PDFS), shape.make(20, PDFS)
    for model in (one, two):
        model.initialise(torch.Generator().manual_seed(7))
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    hidden = torch.randn(300, one.splicing.width, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one(hidden), torch.zeros(300, PDFS))
    for layer in one.hidden_layers().values():
        hidden = layer(hidden)
        assert 0.02 < float(hidden.std(0).mean().detach()) < 3.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offsets": [[0, -1]]}, r"layer 0 has \[0, -1\]; expected ascending numbers"),
        ({"offsets": [[0], [1, 1]]}, r"layer 1 has \[1, 1\]"),
        ({"offsets": [[-60, 60], [-60, 60]]}, "they reach -120 frames; expected at most 100"),
        ({"offsets": [[-60, 0], [60]]}, None),  # far on the way, near at the features
        ({"offsets": [[101]]}, "less than or equal to 100"),
        ({"offsets": [[]]}, "at least 1"),
        ({"offsets": []}, "at least 1"),
        ({"offsets": [[100]] * 40}, "they reach 200 frames"),
        ({"offsets": [[0]] * 51}, "at most 50"),
        ({"channels": 0}, "greater than or equal to 1"),
        ({"hidden_units": 10**6}, "less than or equal to"),
        ({"kernel": 3}, "unknown key"),
    ],
)
def test_impossible_shapes_are_refused(options, message):
    if message is None:
        parse_config(TdnnConfig, options, "recipe")
        return
    with pytest.raises(ConfigError, match=f"recipe: .*{message}"):
        parse_config(TdnnConfig, options, "recipe")


def test_the_summary_names_the_layers():
    shape = TdnnConfig(offsets=((-1, 0, 1), (-2, 3)), channels=64, normalisation="batch")
    assert shape.summary == "time delays {-1,0,1} {-2,3} x 64, 1 x 512 relu, batch normalised"
    assert TdnnConfig(offsets=((0,),), channels=8, hidden_layers=0).summary == "time delays {0} x 8 relu"
