"""``lhuc-asr ppnet train|evaluate|predict|inspect``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lhuc_asr.cli.options import Tensorboard

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from lhuc_asr.ppnet.comparison import Results
    from lhuc_asr.ppnet.recommender import RecommenderConfig

ppnet = typer.Typer(
    help="Rank with networks whose layers are scaled for each user: PPNet and PEPNet.", no_args_is_help=True
)

Ranker = Annotated[Path, typer.Argument(metavar="RANKER", help="A trained model: MODEL/SEED/ranker of a recipe.")]
Files = Annotated[
    list[Path],
    typer.Argument(metavar="FILE", help="Examples: .csv, .tsv (also .gz) or .parquet; folders; quoted patterns."),
]
Device = Annotated[str, typer.Option(help="Device of the network: cpu, cuda, cuda:1.")]


@ppnet.command("train")
def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            help="Folder of a recipe, with its config.yaml; a YAML file; or a recipe's name, as ppnet_synthetic.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings, for example trainer.epochs=3. Names and paths are taken as they stand, with blanks, # and "
            "quotes; null is none. Lists and groups are YAML: seeds=[1, 2].",
        ),
    ] = None,
    device: Device = "cpu",
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show all settings with their meanings, and run nothing.")
    ] = False,
    tensorboard: Tensorboard = False,
) -> None:
    """Train or fit the models of a recipe, networks with every seed, and compare them on the test split.

    Finished stages are skipped; a run that was killed is resumed.
    """
    from contextlib import nullcontext

    from lhuc_asr.base.atomic import write_text
    from lhuc_asr.base.config import load_config
    from lhuc_asr.base.experiment_folder import record_run, refuse_another
    from lhuc_asr.base.explained import explain_config
    from lhuc_asr.base.local_path import check_inputs
    from lhuc_asr.base.locks import locked
    from lhuc_asr.base.ranks import joined
    from lhuc_asr.cli.recipes import recipe_file
    from lhuc_asr.ppnet.recommender import RecommenderConfig, run_recommender
    from lhuc_asr.score.tables import SHORT_WIDTH, table_text

    config = load_config(RecommenderConfig, recipe_file(recipe), overrides or [])
    if print_config:
        typer.echo(explain_config(config), nl=False)
        return
    if tensorboard:  # an extra
        from lhuc_asr.ppnet.curves import training_curves
    chosen = _torch_device(device)
    check_inputs(config)
    with joined(device) as ranks:
        if not ranks.is_first:
            logging.getLogger("lhuc_asr").setLevel(logging.ERROR)  # the first one says it all
            run_recommender(config, config.folder, chosen)
            return
        with locked(config.folder) as folder:
            refuse_another(folder, config, config.name)
            record_run(folder, config, config.seeds)
            with training_curves(config, folder) if tensorboard else nullcontext():
                results = run_recommender(config, folder, chosen)
            text = "\n".join(table_text(table, SHORT_WIDTH) for table in _tables(config, results))
            write_text(folder / "results.txt", text)
    typer.echo(text, nl=False)
    typer.echo(f"Figures and networks: {config.folder}")


@ppnet.command("evaluate")
def evaluate(ranker: Ranker, files: Files, device: Device = "cpu") -> None:
    """Measure a trained network on labelled examples."""
    from lhuc_asr.ppnet.examples import Examples
    from lhuc_asr.ppnet.model_stage import EVALUATION_BATCH
    from lhuc_asr.ppnet.ranker_folder import load_ranker
    from lhuc_asr.ppnet.table_files import listed
    from lhuc_asr.ppnet.trainer import evaluate

    chosen, trained = _torch_device(device), load_ranker(ranker)
    examples = Examples(files, trained.schema, trained.vocabularies)
    metrics = evaluate(trained.network.to(chosen), examples.batches(EVALUATION_BATCH), chosen)
    examples.report_unseen(listed(files))
    for task, figures in metrics.items():
        shown = {
            "AUC": figures.auc,
            "GAUC": figures.gauc,
            "log loss": figures.log_loss,
            "calibration": figures.calibration,
            "calibration error": figures.calibration_error,
        }
        numbers = (f"{name} {'not defined' if value is None else f'{value:.4f}'}" for name, value in shown.items())
        typer.echo(f"{task}: {', '.join(numbers)}; {figures.examples} examples")


@ppnet.command("predict")
def predict(
    ranker: Ranker,
    files: Files,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .csv or .parquet file to write.")],
    device: Device = "cpu",
) -> None:
    """Write the probabilities of examples: one column per task, one row per example."""
    from lhuc_asr.base.destinations import Inputs
    from lhuc_asr.ppnet.prediction import write_predictions
    from lhuc_asr.ppnet.ranker_folder import load_ranker

    trained = load_ranker(ranker)
    Inputs([], [ranker]).refuse(out)
    count = write_predictions(trained, files, out, _torch_device(device))
    typer.echo(f"{out}: {count} examples")


@ppnet.command("inspect")
def inspect(
    ranker: Ranker,
    files: Files,
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder to write gates.json and gates.png to.")],
    by: Annotated[str | None, typer.Option(help="The feature to group by; by default the schema's user.")] = None,
    most: Annotated[
        int, typer.Option(min=2, help="Maximum number of groups in the figure, from both ends of the order.")
    ] = 40,
    known: Annotated[
        Path | None, typer.Option(help="JSON of each group's true scales: the scales.json of a synthetic corpus.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Draw the gates by group of users as a heat map, and list the groups that deviate most."""
    from lhuc_asr.base.destinations import Inputs
    from lhuc_asr.ppnet.examples import Examples
    from lhuc_asr.ppnet.inspection import inspect_gates, rank_correlation, read_known
    from lhuc_asr.ppnet.model_stage import EVALUATION_BATCH
    from lhuc_asr.ppnet.ranker_folder import load_ranker
    from lhuc_asr.ppnet.table_files import listed
    from lhuc_asr.score.figures import save_figure
    from lhuc_asr.score.gate_figures import gate_heat_map

    trained = load_ranker(ranker)
    Inputs([], [ranker]).refuse(out)
    examples = Examples(files, trained.schema, trained.vocabularies, labelled=False)
    report = inspect_gates(
        trained, examples.batches(EVALUATION_BATCH), by or trained.schema.user, _torch_device(device)
    )
    examples.report_unseen(listed(files))
    report.save(out / "gates.json")
    save_figure(gate_heat_map(out / "gates.json", most), out / "gates.png")
    deviations = report.deviations()
    for group in deviations.argsort()[::-1][:10]:
        typer.echo(
            f"{report.groups[group]:30} {int(report.examples[group]):8} examples  deviation {deviations[group]:.4f}"
        )
    if known is not None:
        rho, p_value = rank_correlation(report, read_known(known))
        typer.echo(f"rank correlation of the deviations with {known}: {rho:.3f} (p {p_value:.2g})")
    typer.echo(f"{out / 'gates.png'}: {len(report.groups)} groups")


def _tables(config: RecommenderConfig, results: Results) -> list[Table]:
    """The figures of each task, and the differences between models."""
    from lhuc_asr.ppnet.comparison import comparisons_table, results_table

    seeds = ", ".join(map(str, config.seeds))
    tables = [results_table(results, task, f"{config.name}: {task}, test, seeds {seeds}") for task in results.tasks]
    if len(results.runs) > 1:
        tables.append(comparisons_table(results, f"{config.name}: differences on the test split"))
    return tables


def _torch_device(device: str) -> torch.device:
    """The device that a network runs on."""
    from lhuc_asr.base.device import checked_device

    return checked_device(device, "--device ")
