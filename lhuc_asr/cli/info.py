"""``lhuc-asr info MODEL``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def info(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An exported model's folder, or a finished experiment's.")
    ],
) -> None:
    """Describe a model: network, features, graph, search, adaptation."""
    from lhuc_asr.decode.graph import DecodingGraph
    from lhuc_asr.nnet.checkpoint import load_model
    from lhuc_asr.recognizer.model_folder import MODEL_JSON, read_model

    description, files = read_model(model)
    network, graph = load_model(files.network), DecodingGraph.load(files.lang)
    features, shape = description.features, network.config
    piece, whole = description.piece_seconds, description.whole_seconds
    paths = [model / MODEL_JSON, *files.by_name.values()]
    size = sum(path.stat().st_size for path in paths)
    first, adapted = (
        f"scale {search.acoustic_scale:g}, insertion penalty {search.insertion_penalty:g}, beam {search.beam:g}"
        for search in (description.first_search, description.adapted_search)
    )
    method = description.method.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
    lines = {
        "experiment": f"{description.experiment}, made by lhuc_asr {description.made_by}",
        "network": f"{shape.hidden_layers} x {shape.hidden_units} {shape.activation}, {network.pdf_count} pdfs",
        "network hash": description.network,
        "features": f"{features.dimension} {features.kind} at {features.sample_rate} Hz, "
        f"{shape.context} frames of context on each side",
        "words": f"{len(graph.words) - 1}, in a graph of {graph.states} states and {graph.arcs} arcs",
        "pieces": f"recordings over {whole:.1f} s are cut into pieces of at most {piece:.1f} s",
        "first search": first,
        "adapted search": adapted,
        "adaptation": f"{description.method.kind} on {description.targets.kind} targets, as in pass "
        f"{description.adapted_pass}, seed {description.seed}",
        "method options": ", ".join(f"{key} {value}" for key, value in method.items()),
        "files": f"{len(paths)}, {size / 1e6:.1f} MB",
    }
    for key, text in lines.items():
        typer.echo(f"{key:16}{text}")
