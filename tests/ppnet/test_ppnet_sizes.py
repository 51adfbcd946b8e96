"""Sizes that no module can have are refused when it is made, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.gate import Gate
from lhuc_asr.ppnet import LHUCLayer, PEPNet, PPNet, RankingConfig, SimplePPNet, build
from lhuc_asr.ppnet.embedding import Embeddings
from lhuc_asr.ppnet.layer import BiasLayer
from lhuc_asr.ppnet.schema import FieldConfig, Schema
from lhuc_asr.ppnet.tower import Tower, TowerConfig

NOT_SIZES = [0, -1, 2.0, True, None, "3", 2**70]
SIMPLE = {"feature_dim": 4, "user_num": 10, "user_emb_dim": 3, "hidden_units": (5,)}
SCHEMA = Schema(
    features=(FieldConfig(name="item", kind="id"), FieldConfig(name="user", kind="id", group="prior")),
    labels=("click",),
    user="user",
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("size", NOT_SIZES)
@pytest.mark.parametrize("name", ["feature_dim", "user_num", "user_emb_dim", "tasks"])
def test_a_simple_ppnet_names_the_size_that_cannot_be(name: str, size: Any) -> None:
    with pytest.raises(ConfigError, match=rf"a SimplePPNet with {name}=.* cannot be: give a whole number from 1"):
        SimplePPNet(**(SIMPLE | {name: size}))


@pytest.mark.parametrize("units", [[], (), None, 64, torch.tensor([3])])
def test_a_simple_ppnet_needs_a_layer_to_scale(units: Any) -> None:
    with pytest.raises(ConfigError, match=r"a SimplePPNet with hidden_units=.* has no layer to scale"):
        SimplePPNet(**(SIMPLE | {"hidden_units": units}))


@pytest.mark.parametrize("size", NOT_SIZES)
def test_a_hidden_layer_without_units_is_named(size: Any) -> None:
    with pytest.raises(ConfigError, match=r"hidden_units\[1\]="):
        SimplePPNet(**(SIMPLE | {"hidden_units": [4, size]}))


@pytest.mark.parametrize("user", [-1, 10, 2.5, "7"])
def test_an_unseen_user_is_one_of_the_ids(user: Any) -> None:
    with pytest.raises(ConfigError, match=r"unseen_user=.*: give an id from 0 to 9, or None"):
        SimplePPNet(**SIMPLE, unseen_user=user)
    assert SimplePPNet(**SIMPLE, unseen_user=9).unseen_user == 9


@pytest.mark.parametrize("layer", [LHUCLayer, BiasLayer])
@pytest.mark.parametrize("sizes", [(0, 3, None), (2, 0, None), (2, 3, 0), (2.5, 3, None), (2, 3, -1)])
def test_a_layers_sizes_are_checked(layer: Callable[..., Any], sizes: tuple[Any, Any, Any]) -> None:
    hidden_dim, user_dim, gate_hidden = sizes
    with pytest.raises(ConfigError, match=r"a layer with (hidden_dim|user_dim|gate_hidden)="):
        layer(hidden_dim, user_dim, gate_hidden=gate_hidden, generator=generator())


def test_a_gates_sizes_are_checked() -> None:
    for sizes in ((0, 1, None), (1, 0, None), (1, 1, 0)):
        with pytest.raises(ConfigError, match=r"a gate with (inputs|units|hidden)=0 cannot be"):
            Gate(*sizes, generator=generator())


@pytest.mark.parametrize("rows", [{}, {"item": 3}, {"item": 0, "user": 2}, {"item": 3, "user": "2"}])
def test_a_table_without_rows_is_named(rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"a ranking network with rows\['(item|user)'\]="):
        build(RankingConfig(kind="ppnet"), SCHEMA, rows, generator())


@pytest.mark.parametrize(("network", "kind"), [(PPNet, "dnn"), (PPNet, "pepnet"), (PEPNet, "ppnet")])
def test_a_class_of_networks_has_its_own_kinds(network: Any, kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"{network.__name__} cannot be of kind '{kind}': give kind .*, or use build"):
        network(RankingConfig(kind=kind), SCHEMA, {"item": 3, "user": 2}, generator())


def test_the_parts_of_a_network_are_checked_too() -> None:
    with pytest.raises(ConfigError, match="a module of embeddings with features=0"):
        Embeddings([], {}, generator())
    for inputs, outputs in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError, match=r"a deep network with (inputs|outputs)=0"):
            Tower(inputs, outputs, TowerConfig(), generator())


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_units": []},
        {"hidden_units": [0]},
        {"dropout": -0.1},
        {"dropout": 1.0},
        {"dropout": float("nan")},
        {"gate": {"hidden": 0}},
        {"gate": {"unseen_share": -0.1}},
        {"gate": {"unseen_share": float("nan")}},
    ],
)
def test_a_configuration_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        RankingConfig.model_validate(options)
