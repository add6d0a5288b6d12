"""The commands that show runs and what differs between them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gymtrain.cli.arguments import print_json, to_place

if TYPE_CHECKING:
    from gymtrain.tracking import RunSummary

Store = Annotated[
    str,
    typer.Argument(help="A directory of runs, or a tracking URI of MLflow (sqlite:///…, http://…).", parser=to_place),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def runs(
    store: Store = "runs",
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this experiment.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only runs that are RUNNING, FINISHED, FAILED, KILLED or DIED.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only runs with this param, such as model/type=mlp; repeatable."),
    ] = None,
    sort: Annotated[str | None, typer.Option(metavar="KEY", help="Order by a metric or param, the best first.")] = None,
    ascending: Annotated[
        bool | None, typer.Option("--ascending/--descending", help="Order so, whatever the metric.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Show the first N.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="KEY,KEY", help="Show these metrics, params and tags.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the runs of a store, the newest first."""
    from gymtrain.cli.selection import STATUSES, check_keys, in_experiment, matching, ordered
    from gymtrain.errors import did_you_mean
    from gymtrain.tracking import read_runs, without_password

    if status is not None and status.upper() not in STATUSES:
        hint = did_you_mean(status, STATUSES)
        raise typer.BadParameter(f"{status!r} is none of {', '.join(STATUSES)}{hint}", param_hint="--status")
    found = read_runs(store)
    keys = None if columns is None else [key.strip() for key in columns.split(",") if key.strip()]
    if not found:
        typer.echo("[]" if as_json else f"There are no runs in {without_password(store)}.")
        return
    check_keys(keys or [], found)
    if experiment is not None:
        found = in_experiment(found, experiment)
    for condition in where or []:
        found = matching(found, condition)
    if status is not None:
        found = [run for run in found if run.status == status.upper()]
    if sort is not None:
        found = ordered(found, sort, ascending)
    elif ascending:
        found.reverse()
    found = found[:limit]
    if as_json:
        print_json([run.to_dict() for run in found])
    elif not found:
        typer.echo("No run matches.")
    else:
        from gymtrain.cli.run_tables import print_runs

        print_runs(found, keys)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Directories of runs, ids, names, or bundles; at least two."),
    ],
    store: Annotated[str, typer.Option(metavar="STORE", help="Where ids and names are looked up.")] = "runs",
    everything: Annotated[bool, typer.Option("--all", help="Show also what is equal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what differs between runs: spec, data, environment, metrics."""
    if len(runs) < 2:
        raise typer.BadParameter("got one run; expected at least two", param_hint="RUN RUN...")
    from gymtrain.cli import comparison

    found = _found(runs, store)
    described = [comparison.described(run) for run in found]
    rows = comparison.compare(described)
    if as_json:
        print_json(comparison.to_dict(found, rows, everything=everything))
        return
    from gymtrain.cli.run_tables import print_comparison

    unknown = comparison.unknown(described)
    print_comparison(found, [row for row in rows if row.differs or everything], unknown)
    if not any(row.differs for row in rows):
        typer.echo(f"No difference in {', '.join(each for each in comparison.SECTIONS if each not in unknown)}.")


def _found(names: list[str], store: str) -> list[RunSummary]:
    """Return each run, wherever it lies; the store is read once, and only where a name has to be looked up."""
    from gymtrain.bundle import inspect
    from gymtrain.tracking import bundled_run, find_run, read_runs, run_in

    in_store: list[RunSummary] | None = None
    found = []
    for name in names:
        path = Path(name)
        if path.is_file():
            found.append(bundled_run(path, inspect(path)))
        elif path.is_dir():
            found.append(run_in(path))
        else:
            in_store = read_runs(store) if in_store is None else in_store
            found.append(find_run(name, in_store, store))
    return found
