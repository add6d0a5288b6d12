from __future__ import annotations

import copy
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gymtrain.cli.comparison import SECTIONS, Row, best_of, compare, differences, to_dict, unknown
from gymtrain.registry import foreign_names
from gymtrain.tracking import RunSummary, better

values = st.none() | st.floats() | st.integers() | st.text(max_size=3)
described = st.fixed_dictionaries(
    {},
    optional={section: st.dictionaries(st.sampled_from("abcdef"), values) for section in SECTIONS},
)


def same(one: Any, other: Any) -> bool:
    return one == other or (one != one and other != other)


@given(described, st.integers(2, 4))
def test_what_is_compared_with_itself_has_no_difference(run: dict[str, Any], count: int) -> None:
    assert not any(row.differs for row in compare([copy.deepcopy(run) for _ in range(count)]))


@given(st.lists(described, min_size=2, max_size=4))
def test_every_difference_is_one_and_every_key_has_its_row(runs: list[dict[str, Any]]) -> None:
    rows = compare(runs)

    for row in rows:
        given_values = [run.get(row.section, {}).get(row.key) for run in runs]
        assert all(map(same, given_values, row.values))
        if row.differs:
            known = [run[row.section].get(row.key) for run in runs if run.get(row.section)]
            assert any(not same(one, other) for one in known for other in known)
    keys = {(section, key) for run in runs for section, content in run.items() for key in content}
    assert {(row.section, row.key) for row in rows} == keys
    assert len(rows) == len(keys)


@given(described, described)
def test_the_order_of_two_runs_does_not_change_what_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    def found(*runs: dict[str, Any]) -> set[tuple[str, str]]:
        return {(row.section, row.key) for row in compare(runs) if row.differs}

    assert found(one, other) == found(other, one)


def test_a_key_that_one_spec_lacks_is_a_difference_and_an_unknown_version_is_none() -> None:
    one = {"spec": {"model/hidden": "[8]", "seed": "0"}, "environment": {"torch": "2.9", "numpy": "2.4"}}
    other = {"spec": {"seed": "0"}, "environment": {"torch": "2.9"}}

    assert [row for row in compare([one, other]) if row.differs] == [Row("spec", "model/hidden", ("[8]", None), True)]


def test_a_section_that_nobody_knows_of_a_run_is_no_difference_and_is_told() -> None:
    one, other = {"data": {"train rows": 90}}, {"spec": {"seed": "0"}}

    assert not any(row.differs for row in compare([one, other]))
    assert unknown([one, other])["data"] == [1]
    assert unknown([one, other])["spec"] == [0]


def test_the_better_metric_is_told_by_its_name_or_by_the_run_that_chose_by_it() -> None:
    runs = [RunSummary("", name, "", "FINISHED", monitor="val/oddity", mode="max") for name in "ab"]

    assert best_of("test/loss", (0.5, 0.25), runs) == [1]
    assert best_of("test/accuracy", (0.5, 0.25), runs) == [0]
    assert best_of("best/val_oddity", (0.5, 0.25), runs) == [0]
    assert best_of("test/oddity", (0.5, 0.25), runs) == []
    assert best_of("test/loss", (0.5, math.nan, None, 0.5), runs) == []
    assert best_of("test/loss", (0.5, math.nan, 0.25, 0.25), runs) == [2, 3]
    assert differences((0.5, 0.75, None)) == [0.0, 0.25, None]


def test_what_a_run_says_of_its_metrics_counts_more_than_their_names() -> None:
    directions = {"loss": "min", "accuracy_of_a_lie": "min", "gain": "max"}
    runs = [RunSummary("", "old", "", "FINISHED"), RunSummary("", "new", "", "FINISHED", directions=directions)]

    for key in ("val/gain", "best/val_gain", "test/gain"):
        assert best_of(key, (0.5, 0.25), runs) == [0]
    assert best_of("train/accuracy_of_a_lie", (0.5, 0.25), runs) == [1]
    assert best_of("perf/gain", (0.5, 0.25), runs) == []
    assert best_of("val/gain", (0.5, 0.25), runs[:1]) == []


def test_a_comparison_is_strict_json_with_only_what_differs_unless_all_is_asked_for() -> None:
    runs = [RunSummary("", name, "", "FINISHED") for name in "ab"]
    rows = compare([{"metrics": {"test/loss": math.nan, "n": 1.0}}, {"metrics": {"test/loss": 0.5, "n": 1.0}}])

    short, long = to_dict(runs, rows, everything=False), to_dict(runs, rows, everything=True)

    assert short["metrics"] == {"test/loss": {"values": [None, 0.5], "differences": [None, None], "best": []}}
    assert set(long["metrics"]) == {"test/loss", "n"}
    assert short["identical"] is False


def test_the_names_tell_the_same_as_torchmetrics() -> None:
    import torchmetrics

    told: dict[str, bool] = {}
    for name in foreign_names("metric"):
        kinds = [getattr(torchmetrics.classification, f"{kind}{name}", None) for kind in ("Binary", "Multiclass")]
        kinds.append(getattr(torchmetrics.regression, name, None))
        directions = {getattr(kind, "higher_is_better", None) for kind in kinds} - {None}
        if len(directions) == 1:
            told[name] = directions.pop()

    assert len(told) > 25
    assert {name for name, higher in told.items() if better(f"val/{name}") != ("max" if higher else "min")} == set()
    assert [better(key) for key in ("val/f1", "best/val_roc_auc", "test/r2", "test/rmse")] == [
        "max",
        "max",
        "max",
        "min",
    ]
