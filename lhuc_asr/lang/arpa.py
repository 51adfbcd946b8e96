"""n-gram models in the ARPA format, as SRILM, KenLM and Kaldi's arpa2fst read and write it.

The format has base-10 logarithms, a section for each length of n-grams, and lines
``log-probability <tab> words <tab> log back-off weight``.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np

from lhuc_asr.base.atomic import atomic_path
from lhuc_asr.base.errors import LanguageModelError
from lhuc_asr.lang.lines import quoted, read_lines
from lhuc_asr.lang.ngram import NONE, NgramModel, NgramTable
from lhuc_asr.lang.text import SENTENCE_BEGIN, SENTENCE_END, UNKNOWN

_LN_10 = math.log(10.0)
_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")
# Number of n-grams that are in memory as Python's lists and strings at a time.
_ROWS_AT_ONCE = 1 << 16


def write_arpa(path: Path, model: NgramModel) -> None:
    """Write a model as an ARPA file, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        for length, table in enumerate(model.tables, start=1):
            file.write(f"ngram {length}={len(table)}\n")
        histories: list[str] = []
        for length in range(1, model.order + 1):
            file.write(f"\n\\{length}-grams:\n")
            histories = _write_section(file, model, length, histories)
        file.write("\n\\end\\\n")


def _write_section(file: TextIO, model: NgramModel, length: int, histories: list[str]) -> list[str]:
    """Write the n-grams of one length; return them as strings, the histories of the next length."""
    table = model.tables[length - 1]
    ngrams: list[str] = []
    for start in range(0, len(table), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        history, word = (column.tolist() for column in np.divmod(table.keys[rows], len(model.symbols)))
        if length == 1:
            texts = [model.symbols[w] for w in word]
        else:
            texts = [f"{histories[h]} {model.symbols[w]}" for h, w in zip(history, word, strict=True)]
        log_probs = (table.log_prob[rows] / _LN_10).tolist()
        backoffs = (table.log_backoff[rows] / _LN_10).tolist()
        file.writelines(
            f"{log_prob:.7g}\t{text}\t{backoff:.7g}\n" if backoff else f"{log_prob:.7g}\t{text}\n"
            for log_prob, text, backoff in zip(log_probs, texts, backoffs, strict=True)
        )
        if length < model.order:
            ngrams += texts
    return ngrams


def arpa_order(path: Path) -> int:
    """Length of the longest n-grams of an ARPA file; only its head is read.

    Raises:
        LanguageModelError: The file is missing, or does not begin like an ARPA file.
    """
    return len(_read_counts(_Lines(path)))


def read_arpa(path: Path, order: int | None = None) -> NgramModel:
    r"""Read an ARPA file, plain or compressed.

    Args:
        path: The file.
        order: Length of the longest n-grams to read. The model without the longer ones is a model too: the shorter
            histories have probabilities of their own. None reads all.

    Raises:
        LanguageModelError: ``\data\`` or ``\end\`` is missing, counts or lengths do not match, a number is not
            valid, a log-probability is positive, a word is not among the unigrams, the history of an n-gram is
            missing, an n-gram occurs twice, or the file has no n-grams of length ``order``; the message names the
            line.
    """
    lines = _Lines(path)
    counts = _read_counts(lines)
    if order is not None and order > len(counts):
        raise lines.error(f"a model of order {len(counts)}, expected at least {order}; lower lm.order or lm_order")
    symbols: tuple[str, ...] = ()
    tables: list[NgramTable] = []
    for length, count in enumerate(counts, start=1):
        if lines.current != f"\\{length}-grams:":
            raise lines.error(f"expected the section \\{length}-grams:, found {quoted(lines.current)}")
        section = _Section(lines, length, symbols)
        if len(section.line_numbers) != count:
            raise lines.error(f"\\data\\ promises {count} {length}-grams, found {len(section.line_numbers)}")
        if length == 1:
            symbols = section.symbols()
        tables.append(section.table(NgramModel(symbols, tuple(tables))))
        if length == order and order < len(counts):
            tables[-1] = replace(tables[-1], log_backoff=np.zeros(count))
            return NgramModel(symbols, tuple(tables))
    if lines.current != "\\end\\":
        raise lines.error(f"expected \\end\\, found {quoted(lines.current)}; the file is incomplete, copy it again")
    return NgramModel(symbols, tuple(tables))


class _Lines:
    """The lines of an ARPA file; ``current`` is "" after the last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.current = ""
        self._lines: Iterator[tuple[int, str]] = read_lines(path, LanguageModelError)

    def advance(self) -> str:
        self.number, self.current = next(self._lines, (self.number, ""))
        return self.current

    def error(self, problem: str, number: int | None = None) -> LanguageModelError:
        return LanguageModelError(f"{self.path}:{self.number if number is None else number}: {problem}")


def _read_counts(lines: _Lines) -> list[int]:
    while lines.advance() != "\\data\\":
        if not lines.current:
            raise lines.error("expected a line \\data\\, found none; not an ARPA language model")
    counts: list[int] = []
    while match := _COUNT.fullmatch(lines.advance()):
        if int(match[1]) != len(counts) + 1:
            raise lines.error(f"expected the number of {len(counts) + 1}-grams, found {quoted(lines.current)}")
        counts.append(int(match[2]))
    if not counts:
        raise lines.error(f"expected ngram 1=COUNT, found {quoted(lines.current)}")
    return counts


class _Section:
    """The n-grams of one length in the order of the file, which is read on construction."""

    def __init__(self, lines: _Lines, length: int, symbols: tuple[str, ...]) -> None:
        self.lines = lines
        self.length = length
        self.line_numbers = array("i")
        self.log_probs = array("d")
        self.log_backoffs = array("d")
        self.words: dict[str, int] = {symbol: number for number, symbol in enumerate(symbols)}
        self._columns = [array("i") for _ in range(length)]
        while not lines.advance().startswith("\\") and lines.current:
            self._read_line(lines.current.split())

    def _read_line(self, fields: list[str]) -> None:
        length = self.length
        if not length + 1 <= len(fields) <= length + 2:
            raise self.lines.error(
                f"expected a log-probability, {length} words and at most a back-off weight, found {len(fields)} fields"
            )
        log_prob = self._number(fields[0])
        if log_prob > 0.0:
            raise self.lines.error(f"expected a log-probability of at most 0, found {fields[0]}")
        self.log_probs.append(log_prob)
        self.log_backoffs.append(self._number(fields[-1]) if len(fields) == length + 2 else 0.0)
        self.line_numbers.append(self.lines.number)
        if length == 1:
            if fields[1] in self.words:
                raise self.lines.error(f"the unigram {fields[1]!r} occurs twice")
            self.words[fields[1]] = len(self.words)
            return
        try:
            for column, word in zip(self._columns, fields[1:], strict=False):
                column.append(self.words[word])
        except KeyError as error:
            raise self.lines.error(f"the word {error.args[0]!r} is not among the unigrams") from error

    def _number(self, field: str) -> float:
        try:
            value = float(field) * _LN_10
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.lines.error(f"expected a finite number, found {field!r}")
        return value

    def symbols(self) -> tuple[str, ...]:
        """The unigrams in a model's order: ``<s>``, ``</s>``, ``<unk>``, then the words, sorted."""
        for symbol in (SENTENCE_BEGIN, SENTENCE_END):
            if symbol not in self.words:
                raise self.lines.error(f"expected the unigrams {SENTENCE_BEGIN} and {SENTENCE_END}, found no {symbol}")
        special = [SENTENCE_BEGIN, SENTENCE_END] + [UNKNOWN] * (UNKNOWN in self.words)
        return (*special, *sorted(self.words.keys() - set(special)))

    def table(self, model: NgramModel) -> NgramTable:
        """The n-grams as a table.

        Args:
            model: The model of the shorter n-grams.
        """
        if self.length == 1:
            keys = np.argsort(np.array([self.words[symbol] for symbol in model.symbols]))
        else:
            columns = [np.array(column, dtype=np.int64) for column in self._columns]
            history = model.rows_of(columns[:-1])
            if np.any(history == NONE):
                first = int(np.argmax(history == NONE))
                words = " ".join(model.symbols[column[first]] for column in columns[:-1])
                raise self.lines.error(
                    f"the history {words!r} is not among the {self.length - 1}-grams",
                    self.line_numbers[first],
                )
            keys = history * len(model.symbols) + columns[-1]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        repeated = np.flatnonzero(keys[1:] == keys[:-1])
        if len(repeated):
            raise self.lines.error("this n-gram occurs twice", self.line_numbers[order[repeated[0] + 1]])
        return NgramTable(keys, np.array(self.log_probs)[order], np.array(self.log_backoffs)[order])
