"""Serve the folder of a ranker without lhuc_asr: torch, and Python's own library.

    python serve_ranker.py exp/ppnet_synthetic/ppnet/1/ranker --port 8000
    curl -d '[{"user": "17", "x1": 0.3}]' http://127.0.0.1:8000/

A request is a JSON list of examples, each an object with a cell for every column that the ranker reads; the answer is
a list of objects with a probability for each task. A request that does not fit is answered with status 400 and one
line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import torch

UNSEEN = 0  # the row of a category that training has not seen
LARGEST = 1e38  # of the numbers that the networks compute with


class Ranker:
    """A scoring function, and all that is needed to make its tensors of cells."""

    def __init__(self, folder: Path) -> None:
        schema = json.loads((folder / "ranker.json").read_text(encoding="utf-8"))["examples"]
        self.features, self.labels = schema["features"], schema["labels"]
        vocabularies = json.loads((folder / "vocabularies.json").read_text(encoding="utf-8"))
        self.numbers, self.buckets = vocabularies["numbers"], vocabularies["buckets"]
        self.rows = {name: {c: row for row, c in enumerate(cs, 1)} for name, cs in vocabularies["categories"].items()}
        self.scoring = torch.export.load(folder / "scoring.pt2").module()

    def score(self, examples: list[dict[str, Any]]) -> list[dict[str, float]]:
        """The probability of each task, for each example.

        Raises:
            ValueError: A cell is missing or does not fit; the message names example and column.
        """
        if not isinstance(examples, list) or not all(isinstance(example, dict) for example in examples):
            raise ValueError("expected a list of objects, one for each example")
        if not examples:
            return []
        ids, bags, numbers = {}, {}, {}
        for feature in self.features:
            cells = [self._cell(feature, example, place) for place, example in enumerate(examples, 1)]
            if feature["kind"] == "number":
                numbers[feature["name"]] = torch.tensor(cells, dtype=torch.float32)
            elif feature["kind"] in ("sequence", "multi"):
                lengths = torch.tensor([len(cell) for cell in cells])
                values = torch.tensor([row for cell in cells for row in cell], dtype=torch.int64)
                bags[feature["name"]] = {"values": values, "offsets": lengths.cumsum(0) - lengths}
            else:
                ids[feature["name"]] = torch.tensor(cells)
        with torch.no_grad():
            # In alphabetical order, which torch 2.9 insists on.
            probabilities = self.scoring(*(dict(sorted(part.items())) for part in (ids, bags, numbers)))
        return [dict(zip(self.labels, row, strict=True)) for row in probabilities.tolist()]

    def _cell(self, feature: dict[str, Any], example: dict[str, Any], place: int) -> Any:
        """A standardised number, a row, or a list of rows."""
        column = feature["column"] or feature["name"]
        try:
            return self._encoded(feature, example.get(column))
        except (TypeError, ValueError) as error:
            raise ValueError(f"example {place}, column {column!r}: {error}") from None

    def _encoded(self, feature: dict[str, Any], value: Any) -> Any:
        missing = feature["missing"]
        words = None if missing is None else missing["words"]
        if feature["kind"] in ("sequence", "multi") and value is not None:
            if isinstance(value, str):
                value = value.split(feature["separator"]) if value.strip() else []
            kept = [category for category in value if words is None or not is_missing(category, words)]
            return [self._row(feature, category) for category in kept[-feature["max_length"] :]]
        if is_missing(value, words or []):
            if missing is None:
                raise ValueError("is missing")
            if missing["value"] in ("unseen", "empty"):
                return [] if missing["value"] == "empty" else UNSEEN
            value = 0.0 if missing["value"] == "zero" else self.numbers[feature["name"]][0]
        return self._standardised(feature, value) if feature["kind"] == "number" else self._row(feature, value)

    def _standardised(self, feature: dict[str, Any], value: Any) -> float:
        number = float(value)
        if not abs(number) <= LARGEST:
            raise ValueError(f"expected a number, at most {LARGEST:.0e}, found {value!r}")
        mean, deviation = self.numbers[feature["name"]]
        return (number - mean) / (deviation or 1.0)

    def _row(self, feature: dict[str, Any], category: Any) -> int:
        if isinstance(category, bool) or not isinstance(category, str | int) or not str(category).strip():
            raise ValueError(f"expected a category, text or an integer, found {category!r}")
        table = feature["vocabulary_of"] or feature["name"]
        if table not in self.buckets:
            return self.rows[table].get(str(category), UNSEEN)
        digest = hashlib.blake2b(str(category).encode(), digest_size=8).digest()
        return 1 + (int.from_bytes(digest, "big") >> 1) % self.buckets[table]


def is_missing(value: Any, words: list[str]) -> bool:
    """Whether a cell is null, NaN, blank, or a word that the schema lists; -999 is also -999.0."""
    if isinstance(value, float):
        return math.isnan(value) or value in [
            float(word) for word in words if word.lstrip("-").replace(".", "").isdigit()
        ]
    return value is None or str(value).strip() in ("", *words)


def handler(ranker: Ranker) -> type[BaseHTTPRequestHandler]:
    """The class that answers requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length", 0))
                status, answer = 200, json.dumps(ranker.score(json.loads(self.rfile.read(length))))
            except ValueError as error:
                status, answer = 400, json.dumps({"error": str(error)})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.encode())

    return Handler


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="Serve a ranker on this machine.")
    parser.add_argument("folder", type=Path, help="MODEL/SEED/ranker of a recipe")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one")
    options = parser.parse_args()
    server = HTTPServer(("127.0.0.1", options.port), handler(Ranker(options.folder)))
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)  # noqa: T201
    server.serve_forever()


if __name__ == "__main__":
    main()
