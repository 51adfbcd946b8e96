"""Strings of pdfs from the first frame on, as places in one tree: equal strings are the same place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lhuc_asr.base.compiled import compiled

ROOT = 0
# In place of a place: the tree is full.
FULL = -1


class PdfStrings(NamedTuple):
    """A tree of pdfs; place 0 is its root, the empty string.

    Attributes:
        parent, pdf, length: Place before, last pdf and number of pdfs of each place, int32.
        log_likelihood: Unscaled log-likelihood of the pdfs up to each place, float64.
        mark: Sum of 64-bit numbers of the frames and pdfs up to each place, uint64.
        table: Hash table of places by parent and pdf, 0 where it is empty, int32; its length is a power of two.
        used: Number of places, shape (1,).
    """

    parent: np.ndarray
    pdf: np.ndarray
    length: np.ndarray
    log_likelihood: np.ndarray
    mark: np.ndarray
    table: np.ndarray
    used: np.ndarray

    @classmethod
    def empty(cls, most: int) -> PdfStrings:
        """A tree with a root, and room for ``most`` places."""
        # Memory that is not written to is not taken.
        return cls(
            np.zeros(most, np.int32),
            np.zeros(most, np.int32),
            np.zeros(most, np.int32),
            np.zeros(most),
            np.zeros(most, np.uint64),
            np.zeros(table_size(most), np.int32),
            np.ones(1, np.int64),
        )


def table_size(most: int) -> int:
    """Number of slots of a hash table for so many entries: a power of two, at least twice as many."""
    return 1 << (2 * most - 1).bit_length()


@compiled
def mixed(number: np.uint64) -> np.uint64:
    """A number whose 64 bits each depend on all bits of the given one (S. Vigna, splitmix64)."""
    number = number + np.uint64(0x9E3779B97F4A7C15)
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return number ^ (number >> np.uint64(31))


@compiled
def extended(strings: PdfStrings, place: int, pdf: int, log_likelihood: float) -> int:
    """The place of a string with one more pdf, FULL where there is no room for it.

    Args:
        strings: The tree.
        place: Place of the string.
        pdf: The next frame's pdf.
        log_likelihood: Log-likelihood of the frame, which is the same wherever the pdf is at this frame.
    """
    slots = np.uint64(len(strings.table) - 1)
    slot = mixed((np.uint64(place) << np.uint64(32)) | np.uint64(pdf)) & slots
    while strings.table[slot] != 0:
        known = strings.table[slot]
        if strings.parent[known] == place and strings.pdf[known] == pdf:
            return int(known)
        slot = (slot + np.uint64(1)) & slots
    new = strings.used[0]
    if new == len(strings.parent):
        return FULL
    frame = strings.length[place]
    strings.table[slot] = new
    strings.parent[new], strings.pdf[new], strings.length[new] = place, pdf, frame + 1
    strings.log_likelihood[new] = strings.log_likelihood[place] + log_likelihood
    strings.mark[new] = strings.mark[place] + mixed((np.uint64(frame) << np.uint64(32)) | np.uint64(pdf))
    strings.used[0] = new + 1
    return int(new)


@compiled
def shared(strings: PdfStrings, one: int, other: int) -> int:
    """The place at which two strings part: their longest common beginning."""
    while strings.length[one] > strings.length[other]:
        one = strings.parent[one]
    while strings.length[other] > strings.length[one]:
        other = strings.parent[other]
    while one != other:
        one, other = strings.parent[one], strings.parent[other]
    return int(one)
