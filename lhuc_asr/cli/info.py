"""``lhuc-asr info MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of a model that export made, or of a finished experiment.")
    ],
) -> None:
    """Describe a model: network, features, graph, search, adaptation."""
    from lhuc_asr.decode.graph import DecodingGraph
    from lhuc_asr.nnet.checkpoint import load_model
    from lhuc_asr.recognizer.model_folder import read_model

    description, files = read_model(model)
    network, graph = load_model(files.network), DecodingGraph.load(files.lang)
    features, shape = description.features, network.config
    piece, whole = description.piece_seconds, description.whole_seconds
    size = sum(path.stat().st_size for path in files.by_name.values())
    first, adapted = (
        f"scale {search.acoustic_scale:g}, insertion penalty {search.insertion_penalty:g}, beam {search.beam:g}"
        for search in (description.first_search, description.adapted_search)
    )
    method = description.method.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
    lines = {
        "experiment": f"{description.experiment}, made by lhuc_asr {description.made_by}",
        "network": f"{shape.hidden_layers} x {shape.hidden_units} {shape.activation}, {network.pdf_count} pdfs",
        "hash": description.network,
        "features": f"{features.dimension} {features.kind} at {features.sample_rate} Hz, "
        f"{shape.context} frames on either side",
        "words": f"{len(graph.words) - 1}, in a graph of {graph.states} states and {graph.arcs} arcs",
        "pieces": f"at most {piece:.1f} s, of recordings longer than {whole:.1f} s",
        "search": first,
        "adapted": adapted,
        "adaptation": f"{description.method.kind} on {description.targets.kind} targets, like the pass "
        f"{description.adapted_pass}, seed {description.seed}",
        "settings": ", ".join(f"{key} {value}" for key, value in method.items()),
        "files": f"{len(files.by_name) + 1}, {size / 1e6:.1f} MB",
    }
    for key, text in lines.items():
        typer.echo(f"{key:12}{text}")
