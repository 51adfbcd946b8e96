"""The ranking networks, from a batch of examples to one logit for each task.

E is the vector of the shared embeddings, P that of the prior embeddings (user, item, author), D that of the domain
embeddings. sg stops the gradient, so that training a gate updates its own weights and the P or D embeddings, but not
the shared embeddings, which only the deep network trains.

    dnn      tower(E)
    concat   tower(E, P)
    film     tower(E), with a bias r(P, sg(E)) added to each layer
    simple   tower(E), each layer times a linear gate of the user's embedding (``simple.py``)
    ppnet    tower(E), each layer times a gate of (P, sg(E))              PPNet, Kuaishou 2019
    pepnet   E' = E times a gate of (D, sg(E))                            EPNet
             a tower(E') for each task, each layer times a gate of (P, sg(E'))

Source: J. Chang et al., "PEPNet: Parameter and Embedding Personalized Network for Infusing with Personalized Prior
Information", KDD 2023 (arXiv 2302.01115). In all but pepnet the tasks share the hidden layers.

Before training every gate is 1 (1/2 with scale: sigmoid) and every bias is 0. So, unless the scale is sigmoid, film,
simple and ppnet give the same outputs as dnn with the same seed, bit for bit, and so does pepnet with one task. A user
of row 0, unseen in training, keeps these neutral gates after training. pepnet's gates on the embeddings are conditioned
on the domain, so they are applied to such a user as to any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lhuc_asr.base.errors import ConfigError
from lhuc_asr.lhuc.gate import check_sizes
from lhuc_asr.ppnet.batch import Batch
from lhuc_asr.ppnet.embedding import Embeddings
from lhuc_asr.ppnet.layer import BiasLayer, LHUCLayer
from lhuc_asr.ppnet.linear import LinearModel, LogisticConfig, LogOddsConfig
from lhuc_asr.ppnet.ranking_model import RankingModel
from lhuc_asr.ppnet.schema import SINGLE, FieldConfig, Group, Schema
from lhuc_asr.ppnet.simple import SimplePPNet
from lhuc_asr.ppnet.tower import GateConfig, Tower, TowerConfig

ModelKind = Literal["dnn", "concat", "film", "simple", "ppnet", "pepnet"]

# For each kind of network, the options that have no effect: first those of the network, then those of its gates.
USELESS: dict[ModelKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "dnn": (("gate",), ()),
    "concat": (("gate",), ()),
    "film": ((), ("scale",)),
    "simple": (("batch_norm", "dropout"), ("hidden", "position", "output")),
    "ppnet": ((), ()),
    "pepnet": ((), ()),
}


class RankingConfig(TowerConfig):
    """A ranking network.

    Attributes:
        kind: Kind of the network; see this module's description.
        gate: Options of the gates.
    """

    kind: ModelKind = "ppnet"
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _options_fit_the_kind(self) -> Self:
        own, gates = USELESS[self.kind]
        default = type(self).model_construct()
        given = [name for name in own if getattr(self, name) != getattr(default, name)]
        given += [f"gate.{name}" for name in gates if getattr(self.gate, name) != getattr(default.gate, name)]
        if given:
            raise ValueError(
                f"{', '.join(given)} would have no effect in a network of kind {self.kind!r}; "
                f"leave {'it' if len(given) == 1 else 'them'} out"
            )
        return self


class RankingNetwork(RankingModel):
    """Base of all networks: the shared embeddings, and what the networks need of the schema.

    Args:
        config: Configuration of the network.
        schema: Schema of the examples.
        rows: Number of rows of each table of embeddings, by the name of the field that owns it.
        generator: Draws the initial weights.

    Raises:
        ConfigError: The configuration is that of another class of networks, a size or the number of a table's rows is
            not a whole number from 1, or a group of fields that the network needs is missing from the schema.
    """

    config: RankingConfig

    def __init__(
        self, config: RankingConfig, schema: Schema, rows: Mapping[str, int], generator: torch.Generator
    ) -> None:
        super().__init__(config, schema, rows)
        if NETWORKS[config.kind] is not type(self):
            kinds = " or ".join(kind for kind, network in NETWORKS.items() if network is type(self))
            raise ConfigError(
                f"{type(self).__name__} cannot be of kind {config.kind!r}: give kind {kinds}, or use build"
            )
        check_sizes(
            "a ranking network",
            **{f"hidden_units[{layer}]": units for layer, units in enumerate(config.hidden_units)},
            **{f"embedding of {feature.name!r}": feature.embedding for feature in schema.features},
            **{f"rows[{table.name!r}]": rows.get(table.name) for table in schema.tables},
        )
        self.shared = self._embeddings("shared", generator)

    def _embeddings(self, group: Group, generator: torch.Generator) -> Embeddings:
        features = self.schema.group(group)
        if not features:
            raise ConfigError(
                f"a network of kind {self.config.kind!r} needs features of group {group!r}, but the schema has none; "
                "add one"
            )
        return Embeddings(features, self.rows, generator)

    def _width(self, group: Group) -> int:
        return sum(feature.embedding for feature in self.schema.group(group))

    def _user(self) -> FieldConfig:
        """The prior field that identifies the user."""
        column = self.schema.feature(self.schema.user).source
        for feature in self.schema.group("prior"):
            if feature.source == column and feature.kind in SINGLE:
                return feature
        raise ConfigError(
            f"a network of kind {self.config.kind!r} needs the user among the prior features: add a single-valued "
            f"feature of column {column!r} to group 'prior'"
        )

    def _known(self, rows: Tensor) -> Tensor:
        """Which users get the learned gates, bool, shape (B, 1), given their rows, shape (B,).

        In training, a random share of known users is treated as unseen.
        """
        known = rows[:, None] != 0
        if self.training and self.config.gate.unseen_share:
            known = known & (torch.rand(known.shape, device=known.device) >= self.config.gate.unseen_share)
        return known


class PlainNetwork(RankingNetwork):
    """``dnn`` and ``concat``: networks without gates."""

    def __init__(
        self, config: RankingConfig, schema: Schema, rows: Mapping[str, int], generator: torch.Generator
    ) -> None:
        super().__init__(config, schema, rows, generator)
        width = self.shared.width + (self._width("prior") if config.kind == "concat" else 0)
        self.tower = Tower(width, len(schema.labels), config, generator)
        self.prior = self._embeddings("prior", generator) if config.kind == "concat" else None

    def forward(self, batch: Batch) -> Tensor:
        """Logits, shape (B, tasks)."""
        inputs = self.shared(batch)
        if self.prior is not None:
            inputs = torch.cat([inputs, self.prior(batch)], 1)
        logits: Tensor = self.tower(inputs)
        return logits


class SimpleNetwork(RankingNetwork):
    """``simple``: a SimplePPNet on the shared embeddings."""

    def __init__(
        self, config: RankingConfig, schema: Schema, rows: Mapping[str, int], generator: torch.Generator
    ) -> None:
        super().__init__(config, schema, rows, generator)
        user = self._user()
        self._user_name = user.name
        self.network = SimplePPNet(
            self.shared.width,
            rows[str(user.table)],
            user.embedding,
            config.hidden_units,
            config.gate.scale,
            len(schema.labels),
            unseen_user=0,
            generator=generator,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Logits, shape (B, tasks)."""
        users = batch.ids[self._user_name]
        return self.network.logits(self.shared(batch), users, self._known(users))


class PPNet(RankingNetwork):
    """``ppnet``, and ``film``: a gate, or a bias, for each hidden layer.

    Raises:
        ConfigError: The schema has no shared fields, or the user is not among its prior fields.
    """

    def __init__(
        self, config: RankingConfig, schema: Schema, rows: Mapping[str, int], generator: torch.Generator
    ) -> None:
        super().__init__(config, schema, rows, generator)
        self._user_name = self._user().name
        gate_of = _gate_maker(config, self._width("prior") + self.shared.width, generator)
        self.tower = Tower(self.shared.width, len(schema.labels), config, generator, gate_of, config.gate)
        self.prior = self._embeddings("prior", generator)

    def forward(self, batch: Batch) -> Tensor:
        """Logits, shape (B, tasks)."""
        shared = self.shared(batch)
        conditioning = torch.cat([self.prior(batch), shared.detach()], 1)
        logits: Tensor = self.tower(shared, conditioning, self._known(batch.ids[self._user_name]))
        return logits


class PEPNet(RankingNetwork):
    """``pepnet``: gates on the embeddings by domain, and on the layers of each task's tower by user.

    Raises:
        ConfigError: The schema has no shared or no domain fields, or the user is not among its prior fields.
    """

    def __init__(
        self, config: RankingConfig, schema: Schema, rows: Mapping[str, int], generator: torch.Generator
    ) -> None:
        super().__init__(config, schema, rows, generator)
        self._user_name = self._user().name
        width = self.shared.width
        gate_of = _gate_maker(config, self._width("prior") + width, generator)
        self.towers = nn.ModuleList(Tower(width, 1, config, generator, gate_of, config.gate) for _ in schema.labels)
        self.prior, self.domain = self._embeddings("prior", generator), self._embeddings("domain", generator)
        gate = config.gate
        self.epnet = LHUCLayer(width, self.domain.width + width, gate.scale, gate.hidden, generator)

    def forward(self, batch: Batch) -> Tensor:
        """Logits, shape (B, tasks)."""
        shared = self.shared(batch)
        shared = self.epnet(shared, torch.cat([self.domain(batch), shared.detach()], 1))
        conditioning = torch.cat([self.prior(batch), shared.detach()], 1)
        known = self._known(batch.ids[self._user_name])
        return torch.cat([tower(shared, conditioning, known) for tower in self.towers], 1)


NETWORKS: dict[ModelKind, type[RankingNetwork]] = {
    "dnn": PlainNetwork,
    "concat": PlainNetwork,
    "film": PPNet,
    "simple": SimpleNetwork,
    "ppnet": PPNet,
    "pepnet": PEPNet,
}


# Any model of a comparison, chosen by its kind.
ModelConfig = Annotated[RankingConfig | LogOddsConfig | LogisticConfig, Field(discriminator="kind")]


def build(config: RankingConfig, schema: Schema, rows: Mapping[str, int], generator: torch.Generator) -> RankingNetwork:
    """Build an untrained network from its configuration.

    Args:
        config: Configuration of the network.
        schema: Schema of the examples.
        rows: Number of rows of each table of embeddings, by the name of the field that owns it.
        generator: Draws the initial weights.

    Raises:
        ConfigError: A group of fields or a user field that the network needs is missing from the schema, or the network
            does not fit in memory.
    """
    try:
        return NETWORKS[config.kind](config, schema, rows, generator)
    except (RuntimeError, OverflowError, MemoryError) as error:
        sizes = f"hidden units {list(config.hidden_units)}, tables of up to {max(rows.values(), default=0)} rows"
        raise ConfigError(
            f"a network with {sizes} cannot be made ({str(error).splitlines()[0]}); give fewer units or rows"
        ) from error


def empty_model(config: ModelConfig, schema: Schema, rows: Mapping[str, int]) -> RankingModel:
    """A model of any kind on the ``meta`` device: names and shapes of its tensors, without numbers.

    Raises:
        ConfigError: The schema lacks fields that the model needs, or the model cannot be so large.
    """
    with torch.device("meta"):
        if isinstance(config, RankingConfig):
            return build(config, schema, rows, torch.Generator())
        return LinearModel(config, schema, rows)


def _gate_maker(config: RankingConfig, inputs: int, generator: torch.Generator) -> Callable[[int], nn.Module]:
    gate = config.gate
    if config.kind == "film":
        return lambda units: BiasLayer(units, inputs, gate.hidden, generator)
    return lambda units: LHUCLayer(units, inputs, gate.scale, gate.hidden, generator)
