"""The kinds of shapes: chosen by a recipe, the tensors that they say they have, and a Dnn's dump as it always was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_networks import SMALL

from lhuc_asr.base.config import StrictModel, dump_config, load_config, parse_config
from lhuc_asr.base.errors import ConfigError
from lhuc_asr.base.explained import explain_config
from lhuc_asr.nnet.dnn import Dnn, DnnConfig
from lhuc_asr.nnet.shapes import SHAPES, AnyShape
from lhuc_asr.nnet.tdnn import Tdnn, TdnnConfig


class Recipe(StrictModel):
    """A recipe with one network."""

    shape: AnyShape = DnnConfig()
    dnn: DnnConfig = DnnConfig()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kind": "tdnn", "channels": 7}, TdnnConfig(channels=7)),
        ({"kind": "dnn", "hidden_units": 7}, DnnConfig(hidden_units=7)),
        ({"hidden_units": 7, "normalisation": "layer"}, DnnConfig(hidden_units=7, normalisation="layer")),
    ],
)
def test_a_recipe_chooses_a_shape_by_its_kind(tmp_path, options, expected):
    recipe = parse_config(Recipe, {"shape": options}, "recipe")
    assert recipe.shape == expected
    for text in (dump_config(recipe), explain_config(recipe)):
        (tmp_path / "config.yaml").write_text(text)
        assert load_config(Recipe, tmp_path / "config.yaml") == recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "lstm"}, "unknown kind 'lstm'; known kinds: dnn, tdnn"),
        ({"kind": "tdnn", "context": 3}, "unknown key 'shape.context'"),
        ({"kind": "dnn", "channels": 3}, "unknown key 'shape.channels'"),
        ({"normalisation": "group"}, "shape.normalisation: .*'batch' or 'layer'"),
        ([], "expected|should be"),
    ],
)
def test_a_shape_that_is_none_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(Recipe, {"shape": options}, "recipe")


def test_a_dnns_dump_has_no_kind_and_without_none_is_what_it_was():
    """Keys of finished stages and the descriptions of files are made of it."""
    before = {"hidden_layers": 6, "hidden_units": 2048, "activation": "sigmoid", "dropout": 0.0, "context": 5}
    assert DnnConfig().model_dump(mode="json", exclude_none=True) == before
    assert list(DnnConfig().model_dump(mode="json", exclude_none=True)) == list(before)
    assert DnnConfig.model_validate(before) == DnnConfig()
    assert "kind" not in explain_config(DnnConfig())


@pytest.mark.parametrize("vector", [0, 3])
@pytest.mark.parametrize("name", SMALL)
def test_a_shape_knows_its_tensors_without_making_them(name, vector):
    model = SMALL[name].make(5, 9, vector)
    assert isinstance(model, {"dnn": Dnn, "tdnn": Tdnn}[SMALL[name].kind_name])
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert SMALL[name].tensors(5, 9, vector) == shapes
    assert len(model.hidden_layers()) == SMALL[name].site_count
    assert (model.feature_dimension, model.pdf_count, model.vector_dimension) == (5, 9, vector)
    assert model(torch.zeros(2, model.splicing.width)).shape == (2, 9)


def offsets() -> st.SearchStrategy[Any]:
    layer = st.sets(st.integers(-3, 3), min_size=1, max_size=4).map(lambda each: tuple(sorted(each)))
    return st.lists(layer, min_size=1, max_size=4).map(tuple)


@settings(max_examples=40, deadline=None)
@given(offsets=offsets(), above=st.integers(0, 2), vector=st.integers(0, 2), seed=st.integers(0, 100))
def test_frames_out_of_reach_do_not_matter(offsets, above, vector, seed):
    """Whatever the offsets, a network sees the frames that chains of offsets lead to, and no others.

    Its window ends with the first and the last of them, or with the frame itself.
    """
    shape = TdnnConfig(offsets=offsets, channels=8, hidden_layers=above, hidden_units=4, activation="sigmoid")
    generator = torch.Generator().manual_seed(seed)
    model = shape.make(2, 3, vector)
    model.initialise(generator)
    torch.nn.init.normal_(model.output.weight, generator=generator)
    reached = {0}
    for each in offsets:
        reached = {frame + offset for frame in reached for offset in each}
    spliced = torch.randn(1, model.splicing.width, generator=generator, requires_grad=True)
    model(spliced).square().sum().backward()
    used = spliced.grad[0, : model.splicing.window].view(-1, 2).any(1)
    frames = range(min(0, *reached), max(0, *reached) + 1)
    assert {frame for frame, one in zip(frames, used.tolist(), strict=True) if one} == reached


def test_every_kind_is_in_the_table_under_its_name():
    assert {kind: shape.kind_name for kind, shape in SHAPES.items()} == {"dnn": "dnn", "tdnn": "tdnn"}
    for kind, shape in SHAPES.items():
        assert isinstance(shape.model_validate({"kind": kind}), shape)
    with pytest.raises(ValidationError, match="kind"):
        DnnConfig.model_validate({"kind": "tdnn"})
