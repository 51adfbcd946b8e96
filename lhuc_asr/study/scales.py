"""Errors of all passes of a network at each acoustic scale that its search was tuned over.

A gain that is there at one scale only is luck of the scale. The penalty is the tuned one.
"""

from __future__ import annotations

from collections.abc import Iterator

from lhuc_asr.base.runlog import progress
from lhuc_asr.decode.pool import SearchPool
from lhuc_asr.pipeline.earlier_pass import scores_of, tuned_search, two_pass
from lhuc_asr.pipeline.experiment import AlignedExperiment
from lhuc_asr.pipeline.passes import scored
from lhuc_asr.pipeline.resolved_pass import Pass
from lhuc_asr.score.scale_figure import scale_figure
from lhuc_asr.score.wer import WerReport, pool
from lhuc_asr.study.look import Look, Row


def scales(look: Look) -> list[Row]:
    """The errors of each pass at each scale, pooled over folds; the figure has a curve for each pass."""
    rows = []
    for plan in look.passes:
        if plan.network != look.plan.network:
            continue
        reports: dict[float, list[WerReport]] = {}
        for fold in look.folds:
            for scale, report in _reports(fold, look.split, plan):
                reports.setdefault(scale, []).append(report)
        for scale, folds in sorted(reports.items()):
            report = pool(folds)
            row = look.row(acoustic_scale=scale, wer=report.wer, errors=report.errors, words=report.words)
            rows.append(row | {"pass": plan.name})
    chosen = [tuned_search(fold, look.plan).acoustic_scale for fold in look.folds]
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        curves.setdefault(row["pass"], []).append((row["acoustic_scale"], row["wer"]))
    look.draw(scale_figure(curves, chosen, f"{look.split}: passes of the network {look.plan.network}"))
    return rows


def _reports(experiment: AlignedExperiment, split: str, plan: Pass) -> Iterator[tuple[float, WerReport]]:
    """The errors of a pass over a split at each scale; its scores are computed once."""
    loop, utterances = two_pass(experiment, split, plan), experiment.utterances(split)
    known = list(scores_of(experiment, split, plan, loop))
    tuned, options = tuned_search(experiment, plan), sorted(set(plan.tuning.acoustic_scales))
    with SearchPool(experiment.graph(split), experiment.processes) as searches:
        for scale in options:
            search = tuned.model_copy(update={"acoustic_scale": scale})
            hypotheses = searches.search_all(known, search)
            title = f"{plan.name} over {split} at scale {scale:g}"
            yield scale, scored(list(progress(hypotheses, title, len(utterances))), utterances)
