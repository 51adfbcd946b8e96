"""The decoding graph that searches are tested on."""

from __future__ import annotations

import pytest
from three_words import ARPA, LEXICON, TOPOLOGY

from lhuc_asr.decode.graph import DecodingGraph, build_graph


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> DecodingGraph:
    """The graph of three words."""
    folder = tmp_path_factory.mktemp("graph")
    (folder / "lm.arpa").write_text(ARPA)
    return build_graph(LEXICON, folder / "lm.arpa", TOPOLOGY, folder)
