"""Categories that the vocabulary of a trained network does not have: counted by feature, reported, and warned about.

Ids that are written in another way than in training ("25.0", " 5", "005", the wrong separator in a list) are unseen,
every one of them, and nothing else shows it: each example gets a probability, without its user.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from lhuc_asr.base.atomic import read_json, write_json
from lhuc_asr.base.config import StrictModel, parse_config
from lhuc_asr.base.extras import extra
from lhuc_asr.ppnet.schema import BAGS, FieldConfig, Schema
from lhuc_asr.ppnet.table_files import one_line
from lhuc_asr.ppnet.vocabulary import Vocabularies

with extra("rank"):
    import pyarrow as pa

logger = logging.getLogger(__name__)

# Share of unseen categories from which on something is wrong with them, rather than with the age of the training data.
SUSPICIOUS = 0.5
# Number of categories that a warning shows as examples, and of a vocabulary that are compared with one.
SHOWN, COMPARED = 3, 1_000_000


class Coverage(StrictModel):
    """The cells of a field, or its categories where cells hold several.

    Attributes:
        categories: Number of categories, without missing ones.
        missing: Number of missing cells.
        unseen: Number of categories that the vocabulary does not have, or, where they are hashed, that are written in
            a form that training does not have; None where neither is known.
        examples: Some of the unseen categories.
    """

    categories: int = Field(0, ge=0, le=10**15)
    missing: int = Field(0, ge=0, le=10**15)
    unseen: int | None = Field(0, ge=0, le=10**15)
    examples: tuple[str, ...] = ()

    def counted(self, categories: pa.Array, unknown: np.ndarray | None) -> Coverage:
        """The coverage with more categories.

        Args:
            categories: Categories as text, null where missing, shape (N,).
            unknown: Which of them training does not have, bool, shape (N,); None where that is not known.
        """
        missing = categories.null_count
        more = {"categories": self.categories + len(categories) - missing, "missing": self.missing + missing}
        if self.unseen is None or unknown is None:
            return self.model_copy(update=more)
        examples = self.examples
        if len(examples) < SHOWN and unknown.any():
            some = categories.take(pa.array(np.flatnonzero(unknown)[: 10 * SHOWN])).to_pylist()
            examples = tuple(dict.fromkeys((*examples, *some)))[:SHOWN]
        return self.model_copy(update=more | {"unseen": self.unseen + int(unknown.sum()), "examples": examples})

    @property
    def share(self) -> float:
        """Share of the categories that are unseen; 0 where that is not known."""
        return (self.unseen or 0) / max(1, self.categories)


def uncounted(schema: Schema, vocabularies: Vocabularies) -> dict[str, Coverage]:
    """The coverage of each field with categories before any is counted, by the field's name."""
    fields = (feature for feature in schema.features if feature.table)
    known = vocabularies.categories.keys() | vocabularies.forms.keys()
    return {field.name: Coverage(unseen=0 if field.table in known else None) for field in fields}


class UnseenReport(StrictModel):
    """What a run knows of its splits before it trains: content of ``unseen.json``.

    Attributes:
        splits: Coverage of each split, by the field's name.
    """

    splits: dict[str, dict[str, Coverage]]

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> UnseenReport:
        """Read what ``save`` wrote.

        Raises:
            ConfigError: The file holds something else.
            DamagedFileError: The file is not JSON.
        """
        return parse_config(cls, read_json(path), str(path))


def report_unseen(counts: Mapping[str, Coverage], schema: Schema, vocabularies: Vocabularies, where: str) -> None:
    """Log the share of unseen categories of every field, and warn where it is suspicious.

    Args:
        counts: Coverage of each field, by its name.
        schema: Schema of the examples.
        vocabularies: Vocabularies that the categories were looked up in.
        where: What was counted, for the message: "test".
    """
    if counts:
        logger.info("%s: not in the vocabulary: %s", where, ", ".join(_shares(counts, schema)))
    warned: set[tuple[str, str | None]] = set()
    for name, coverage in counts.items():
        feature = schema.feature(name)
        if coverage.share >= SUSPICIOUS and (feature.source, feature.table) not in warned:
            warned.add((feature.source, feature.table))
            logger.warning("%s: %s", where, _warning(feature, coverage, vocabularies, name == schema.user))


def _shares(counts: Mapping[str, Coverage], schema: Schema) -> Iterator[str]:
    for name, coverage in counts.items():
        share = "not known (hashed)" if coverage.unseen is None else f"{coverage.share:.1%}"
        cells = coverage.categories + coverage.missing
        yield f"{name} {share}" + (f" ({coverage.missing / cells:.1%} missing)" if coverage.missing else "")


def _warning(feature: FieldConfig, coverage: Coverage, vocabularies: Vocabularies, user: bool) -> str:
    if feature.table in vocabularies.buckets:
        return _warning_of_form(feature, coverage, vocabularies)
    known = vocabularies.categories[str(feature.table)]
    example = coverage.examples[0] if coverage.examples else ""
    some = ", ".join(one_line(repr(category)) for category in list(known)[:SHOWN])
    return (
        f"feature {feature.name!r}: {coverage.unseen} of {coverage.categories} categories of column "
        f"{feature.source!r} are not in the vocabulary, such as {one_line(repr(example))}; "
        + (f"it has {some}" if known else "it is empty (min_count is too high)")
        + ("; to the network these users are unknown" if user else "")
        + _hint(example, known, feature)
    )


def _warning_of_form(feature: FieldConfig, coverage: Coverage, vocabularies: Vocabularies) -> str:
    forms = ", ".join(one_line(repr(form)) for form in vocabularies.forms[str(feature.table)][:SHOWN])
    return (
        f"feature {feature.name!r}: {coverage.unseen} of {coverage.categories} categories of column "
        f"{feature.source!r} are written in another way than in training, such as "
        f"{one_line(repr(coverage.examples[0]))}; there they look like {forms} (0 for digits, a for letters), and each "
        "that differs falls into a bucket of others; write them as there"
    )


def _hint(example: str, known: Mapping[str, int], feature: FieldConfig) -> str:
    """A guess why a category is not in the vocabulary; nothing where there is none."""
    if feature.kind in BAGS and any(part in known for part in _parts(example)):
        return f"; is {feature.separator!r} the separator of these files?"
    wanted = _plain(example)
    same = next((category for category in list(known)[:COMPARED] if _plain(category) == wanted), None)
    return "" if same is None else f"; is {one_line(repr(example))} the {one_line(repr(same))} of training? write it so"


def _parts(example: str) -> Sequence[str]:
    return [part for part in re.split(r"[^\w-]+", example) if part and part != example]


def _plain(category: str) -> str:
    """A category without what differs between ways of writing it: spaces, quotes, case, leading zeros, ``.0``."""
    text = category.strip().strip("'\"").strip().casefold()
    number = re.fullmatch(r"([+-]?)0*(\d+)(?:\.0*)?", text)
    return f"{number[1].removeprefix('+')}{number[2]}" if number else text
