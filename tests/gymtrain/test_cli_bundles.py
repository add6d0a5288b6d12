from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_forge import make_contents
from typer.testing import CliRunner, Result

from gymtrain import Trainer
from gymtrain.bundle import Contents, differences, from_numpy, generate_key, open_bundle, sign, to_numpy, write
from gymtrain.cli import app
from gymtrain.errors import BundleError, InputError, SaveError, SpecError
from gymtrain.training.callbacks import Callback

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e[bold]"
OBEYED = {"\x1b", "\x07", "\x9b", "\u202e"}


def run(*arguments: object, **options: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


def trained(folder: Path, *, seed: int = 0, **training: Any) -> Trainer:
    trainer = Trainer(
        dataset={
            "dataset": {"type": "iris"},
            "samples": {"train": 0.6, "val": 0.2, "test": 0.2},
            "preprocessors": ["standard_scaler"],
        },
        model={"model": {"type": "mlp", "hidden": [8]}, "training": {"epochs": 2, "seed": seed, **training}},
        tracking={"root": str(folder / "runs")},
    )
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def trainer(folder: Path) -> Trainer:
    return trained(folder, checkpoint={})


@pytest.fixture(scope="module")
def bundle(trainer: Trainer, folder: Path) -> Path:
    trainer.save(folder / "iris.zip")
    return folder / "iris.zip"


@pytest.fixture(scope="module")
def checkpoint(trainer: Trainer) -> Path:
    assert trainer.result is not None
    return max(Path(trainer.result["run"]["checkpoint_dir"]).glob("*.zip"))


@pytest.fixture(scope="module")
def hostile(bundle: Path, folder: Path) -> Path:
    """A bundle that is verified, and whose texts are made to be obeyed by a terminal or read as markup."""
    import gymtrain

    content = gymtrain.inspect(bundle)
    spec = content["spec"] | {"model": {"model": {"type": HOSTILE}, "training": {"loss": HOSTILE}}}
    results = content["results"] | {
        "metrics": {f"train/{HOSTILE}": [1.0], f"val/{HOSTILE}": HOSTILE},
        "best": None,
        "hardware_info": {"platform": HOSTILE, "libraries": {HOSTILE: HOSTILE}},
        "data": {"train": {"rows": 1, "sha256": HOSTILE}, HOSTILE: {"rows": 1, "sha256": HOSTILE}},
    }
    contents = make_contents(readme=f"# {HOSTILE}\n{HOSTILE}", versions={HOSTILE: HOSTILE})
    path = folder / "hostile.zip"
    write(path, replace(contents, spec=spec, schema=content["schema"], results=results, created=HOSTILE))
    return path


def test_inspect_shows_the_data_the_machine_the_versions_and_the_model_card(bundle: Path, trainer: Trainer) -> None:
    result = run("inspect", bundle)

    assert result.exit_code == 0, result.output
    assert trainer.result is not None
    for expected in (
        "a trained model",
        f"90 rows, SHA-256 {trainer.result['data']['train']['sha256']}",
        trainer.spec_sha256,
        trainer.result["hardware_info"]["platform"],
        "torch 2.",
        "# mlp on iris",
        "- preprocessors: standard_scaler",
        "- epochs: 2",
    ):
        assert expected in result.stdout


def test_inspect_says_of_a_checkpoint_that_it_is_one(checkpoint: Path, trainer: Trainer) -> None:
    result = run("inspect", checkpoint)

    assert result.exit_code == 0, result.output
    assert trainer.result is not None
    assert "a checkpoint" in result.stdout
    assert trainer.result["data"]["val"]["sha256"] in result.stdout


def test_inspect_works_where_torch_and_all_that_is_heavy_cannot_be_imported(bundle: Path, checkpoint: Path) -> None:
    code = f"""
import sys
heavy = "torch torchmetrics mlflow sklearn skops pandas pyarrow matplotlib tensorboard cryptography"
sys.modules |= dict.fromkeys(heavy.split())
from gymtrain.cli import app
import gymtrain
for path in ({str(bundle)!r}, {str(checkpoint)!r}):
    app(["inspect", path], standalone_mode=False)
    app(["inspect", path, "--json"], standalone_mode=False)
    assert gymtrain.inspect(path)["results"]["data"]["train"]["rows"] == 90
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("# mlp on iris") == 4


def test_what_a_hostile_bundle_says_is_shown_and_not_obeyed(hostile: Path) -> None:
    for arguments in (["inspect", hostile], ["inspect", hostile, "--json"]):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert not OBEYED & set(result.output)
        assert "[bold]" in result.stdout


def test_the_data_of_a_bundle_are_those_that_its_run_was_told_of(bundle: Path, trainer: Trainer) -> None:
    content = json.loads(run("inspect", bundle, "--json").stdout)

    assert trainer.result is not None
    assert content["results"]["data"] == trainer.result["data"]
    assert {part: rows["rows"] for part, rows in content["results"]["data"].items()} == {
        "train": 90,
        "val": 30,
        "test": 30,
    }
    assert sum(content["results"]["data"]["train"]["classes"].values()) == 90


def altered(bundle: Path, path: Path, change: float, **changes: Any) -> Path:
    """Write a bundle again whose rows are said to have given other outputs."""
    with open_bundle(bundle) as opened:
        selfcheck = opened.selfcheck()
        scores = to_numpy(selfcheck["scores"]) + np.float32(change)
        contents = Contents(
            spec=opened.spec,
            schema=opened.schema,
            results=opened.results | changes,
            selfcheck=selfcheck | {"scores": from_numpy(scores)},
            readme=opened.readme,
            which_weights=opened.manifest["weights"],
            versions=opened.manifest["versions"],
            created=opened.manifest["created"],
            weights=opened.weights(),
            preprocessors=opened.preprocessors(),
        )
        write(path, contents)
    return path


def test_verify_replays_the_rows_of_bundles_and_checkpoints(bundle: Path, checkpoint: Path) -> None:
    for path in (bundle, checkpoint):
        shown, printed = run("verify", path), run("verify", path, "--json")

        assert shown.exit_code == printed.exit_code == 0, shown.output
        assert "8 rows" in shown.stdout
        assert "same bits" in shown.stdout
        found = json.loads(printed.stdout)
        assert (found["verdict"], found["largest_difference"], found["changed_labels"]) == ("same bits", 0.0, 0)


@pytest.mark.parametrize(("change", "verdict", "code"), [(1e-4, "within tolerance", 0), (0.01, "different", 1)])
def test_verify_tells_rounding_from_another_answer_and_says_what_is_other_here(
    change: float, verdict: str, code: int, bundle: Path, trainer: Trainer, tmp_path: Path
) -> None:
    assert trainer.result is not None
    hardware = trainer.result["hardware_info"] | {"python": "3.99.0"}
    path = altered(bundle, tmp_path / "altered.zip", change, hardware_info=hardware)

    shown, printed = run("verify", path), run("verify", path, "--json")

    assert shown.exit_code == printed.exit_code == code
    assert verdict in shown.stdout
    assert "3.99.0" in shown.stdout
    found = json.loads(printed.stdout)
    assert found["verdict"] == verdict
    assert found["largest_difference"] == pytest.approx(change, rel=0.01)
    assert list(found["environment"]) == ["python"]


def test_verify_replays_frames_and_models_of_scikit_learn_and_regressions(tmp_path: Path) -> None:
    rows = {"size": [1.0, 2.0, 3.0, 4.0] * 5, "town": ["a", "b", None, "a"] * 5, "price": list(range(20))}
    (tmp_path / "rows.csv").write_text(
        "size,town,price\n" + "".join(f"{a},{b or ''},{c}\n" for a, b, c in zip(*rows.values(), strict=True))
    )
    for model in ({"type": "sklearn", "estimator": "RandomForestRegressor", "n_estimators": 3}, {"type": "linear"}):
        trainer = Trainer(
            dataset={
                "dataset": {
                    "type": "csv",
                    "path": str(tmp_path / "rows.csv"),
                    "target": "price",
                    "task": "regression",
                }
            },
            model={"model": model},
            tracking={"root": str(tmp_path / "runs")},
        )
        trainer.train()
        trainer.save(tmp_path / "model.zip")

        found = Trainer.load(tmp_path / "model.zip").verify()

        assert (found["verdict"], found["changed_labels"]) == ("same bits", None)
        assert Trainer.load(tmp_path / "model.zip").reproduce()["same_bits"]


def test_a_trainer_that_was_trained_here_has_nothing_to_verify(trainer: Trainer) -> None:
    with pytest.raises(InputError, match=r"a trainer has them that Trainer\.load read"):
        trainer.verify()


def test_rows_that_do_not_fit_the_model_are_a_fault_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    with open_bundle(bundle) as opened:
        contents = Contents(
            spec=opened.spec,
            schema=opened.schema,
            results=opened.results,
            selfcheck=opened.selfcheck() | {"scores": from_numpy(np.zeros((8, 2), np.float32))},
            readme="",
            which_weights="best",
            versions={},
            created="",
            weights=opened.weights(),
            preprocessors=opened.preprocessors(),
        )
        write(tmp_path / "odd.zip", contents)

    result = run("verify", tmp_path / "odd.zip")

    assert result.exit_code == 2
    assert "scores of type float32 and shape (8, 2); this model gives float32 and (8, 3)" in result.stderr


def test_diff_finds_no_difference_between_a_bundle_and_its_copy(bundle: Path, trainer: Trainer, tmp_path: Path) -> None:
    trainer.save(tmp_path / "again.zip")

    result, printed = run("diff", bundle, tmp_path / "again.zip"), run("diff", bundle, bundle, "--json")

    assert result.exit_code == printed.exit_code == 0, result.output
    told = "No difference in spec, data, schema, environment, metrics, signature, and in what was learned."
    assert told in result.stdout
    assert json.loads(printed.stdout)["identical"] is True


def test_diff_says_who_has_signed_them(bundle: Path, tmp_path: Path) -> None:
    private, _ = generate_key()
    signed = tmp_path / "signed.zip"
    signed.write_bytes(bundle.read_bytes())
    fingerprint = sign(signed, private).fingerprint

    shown = run("diff", bundle, signed)
    told = json.loads(run("diff", bundle, signed, "--json").stdout)

    assert (shown.exit_code, fingerprint in shown.stdout) == (1, True)
    assert (told["identical"], told["learned"]) == (False, [])
    assert told["signature"] == {"says it is of the key of SHA-256": [None, fingerprint]}
    assert run("diff", signed, signed).exit_code == 0


def test_diff_shows_spec_metrics_and_tensors_without_torch(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    trained(tmp_path, seed=1).save(other)
    code = f"""
import sys
sys.modules |= dict.fromkeys("torch torchmetrics mlflow sklearn skops pandas pyarrow matplotlib cryptography".split())
from gymtrain.cli import app
app(["diff", {str(bundle)!r}, {str(other)!r}])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = json.loads(run("diff", bundle, other, "--json").stdout)

    assert shown.returncode == 1, shown.stderr
    for expected in ("training/seed", "weights/0.weight", "F32 (8, 4)", "largest difference", "test/loss"):
        assert expected in shown.stdout
    assert told["identical"] is False
    assert told["spec"]["training/seed"] == ["0", "1"]
    assert told["data"] == told["schema"] == {}
    weight = next(each for each in told["learned"] if each["name"] == "weights/0.weight")
    with open_bundle(bundle) as one, open_bundle(other) as two:
        arrays = [to_numpy((each.weights() or {})["0.weight"]).astype(float) for each in (one, two)]
    assert weight["largest"] == np.abs(arrays[0] - arrays[1]).max()
    assert weight["differing"] == (arrays[0] != arrays[1]).sum() > 0
    assert not any(each["name"].startswith("preprocessors") for each in told["learned"])


def test_diff_shows_other_rows_classes_and_shapes(bundle: Path, tmp_path: Path) -> None:
    other = Trainer(
        dataset={"dataset": {"type": "wine"}, "preprocessors": ["min_max_scaler"]},
        model={"model": {"type": "mlp", "hidden": [8]}, "training": {"epochs": 1}},
        tracking={"root": str(tmp_path)},
    )
    other.train()
    other.save(tmp_path / "wine.zip")

    told = json.loads(run("diff", bundle, tmp_path / "wine.zip", "--json").stdout)

    assert told["data"]["train rows"] == [90, 142]
    assert told["schema"]["features/shape"] == ["[4]", "[13]"]
    learned = {each["name"]: each for each in told["learned"]}
    assert learned["weights/0.weight"]["one"].startswith("F32 (8, 4) ")
    assert learned["weights/0.weight"]["other"].startswith("F32 (8, 13) ")
    assert learned["weights/0.weight"]["largest"] is None
    assert "preprocessors/000.json" in learned


def test_what_hostile_bundles_say_is_not_obeyed_by_diff_either(hostile: Path, bundle: Path) -> None:
    for arguments in (["diff", hostile, bundle, "--all"], ["diff", hostile, hostile, "--json"], ["verify", hostile]):
        result = run(*arguments)
        assert result.exit_code in (0, 1, 2)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert not OBEYED & set(result.output)


def test_reproduce_trains_to_the_same_bits_and_leaves_nothing_behind(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(folder.rglob("*"))

    shown = run("reproduce", bundle, "--keep", "again.zip")

    assert shown.exit_code == 0, shown.output
    assert "the same bits" in shown.stdout
    assert "train 90 rows, val 30 rows, test 30 rows" in shown.stdout
    assert sorted(folder.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["again.zip"]
    assert run("diff", bundle, "again.zip").exit_code == 0


def test_reproduce_says_what_is_not_the_same(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with open_bundle(bundle) as opened:
        weights = dict(opened.weights() or {})
        weights["0.bias"] = from_numpy(to_numpy(weights["0.bias"]) + np.float32(1.0))
        results = opened.results | {"metrics": opened.results["metrics"] | {"test/loss": 7.0}}
        contents = Contents(
            spec=opened.spec,
            schema=opened.schema,
            results=results,
            selfcheck=opened.selfcheck(),
            readme="",
            which_weights="best",
            versions={},
            created="",
            weights=weights,
            preprocessors=opened.preprocessors(),
        )
        write(other, contents)

    shown, printed = run("reproduce", other), run("reproduce", other, "--json")

    assert shown.exit_code == printed.exit_code == 1
    assert "not the same: 1 differences" in shown.stdout
    found = json.loads(printed.stdout)
    assert [(each["name"], each["largest"], each["differing"]) for each in found["learned"]] == [
        ("weights/0.bias", pytest.approx(1.0), 8)
    ]
    assert list(found["metrics"]) == ["test/loss"]


def test_reproduce_needs_the_arrays_and_sees_whether_they_are_those_of_then(tmp_path: Path) -> None:
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    trainer = Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": y}},
        model={"model": {"type": "linear"}, "training": {"epochs": 1}},
        tracking={"root": str(tmp_path / "runs")},
    )
    trainer.train()
    path = tmp_path / "arrays.zip"
    trainer.save(path)
    np.savez(tmp_path / "then.npz", X=X, y=y)
    np.savez(tmp_path / "other.npz", X=X + 1e-9, y=y)

    without = run("reproduce", path)
    then = run("reproduce", path, "--data", tmp_path / "then.npz")
    other = run("reproduce", path, "--data", tmp_path / "other.npz")

    assert (without.exit_code, then.exit_code, other.exit_code) == (2, 0, 2), then.output
    assert "of dataset.dataset.X, dataset.dataset.y the bundle holds the fingerprint" in without.stderr
    assert "these are not the data of then:\n  the train part has 32 rows with SHA-256" in other.stderr
    assert trainer.reproduce()["same_bits"]
    assert Trainer.load(path).reproduce({"X": X, "y": y})["same_bits"]
    with pytest.raises(SpecError, match="the dataset arrays has no argument 'Y'; did you mean"):
        Trainer.load(path).reproduce({"Y": y})
    with pytest.raises(SpecError, match="data: got 5; expected arguments of the dataset by name"):
        Trainer.load(path).reproduce(5)


def test_reproduce_finds_a_table_that_has_moved_and_a_frame_in_a_file(tmp_path: Path) -> None:
    table = {"size": [float(each % 7) for each in range(40)], "kind": ["a", "b"] * 20}
    csv = tmp_path / "rows.csv"
    csv.write_text("size,kind\n" + "".join(f"{a},{b}\n" for a, b in zip(*table.values(), strict=True)))
    for dataset in ({"type": "csv", "path": str(csv)}, {"type": "dataframe", "data": table}):
        trainer = Trainer(
            dataset={"dataset": {**dataset, "target": "kind"}},
            model={"model": {"type": "linear"}, "training": {"epochs": 1}},
            tracking={"root": str(tmp_path / "runs")},
        )
        trainer.train()
        trainer.save(tmp_path / f"{dataset['type']}.zip")
    moved = csv.rename(tmp_path / "moved.csv")

    assert run("reproduce", tmp_path / "csv.zip").exit_code == 2
    assert run("reproduce", tmp_path / "csv.zip", "--data", moved).exit_code == 0
    assert run("reproduce", tmp_path / "dataframe.zip", "--data", moved).exit_code == 0


def test_what_ended_by_chance_or_goes_on_cannot_be_reproduced(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    interrupted = altered(bundle, tmp_path / "interrupted.zip", 0.0, stop_reason="interrupt", status="KILLED")

    for path, words in ((checkpoint, "this is a checkpoint"), (interrupted, "ended from outside (interrupt)")):
        result = run("reproduce", path)
        assert result.exit_code == 1
        assert words in result.stderr


def test_reproduce_wants_every_part_of_the_data_to_be_known(bundle: Path, trainer: Trainer, tmp_path: Path) -> None:
    assert trainer.result is not None
    data = trainer.result["data"]
    train = {"train": data["train"]}

    for told, code, words in (
        ({}, 1, "the results do not say of which data they are"),
        (train, 2, "there is a val part, and then there was none\n  there is a test part, and then there was none"),
        (data | {"more": data["train"]}, 2, "there is no more part, and then there was one"),
    ):
        result = run("reproduce", altered(bundle, tmp_path / "told.zip", 0.0, data=told))
        assert (result.exit_code, words in result.stderr) == (code, True), result.output


def test_reproduce_keeps_the_new_bundle_at_an_address(trainer: Trainer) -> None:
    found = trainer.reproduce(keep="memory://kept/again.zip")

    assert found["same_bits"]
    assert Trainer.load("memory://kept/again.zip").spec_sha256 == trainer.spec_sha256


def test_the_command_keeps_it_there_too(bundle: Path) -> None:
    result = run("reproduce", bundle, "--keep", "memory://kept/told.zip")

    assert result.exit_code == 0, result.output
    assert run("diff", bundle, "memory://kept/told.zip").exit_code == 0


def test_weights_that_were_rounded_in_earlier_bundles_are_reproduced_so(trainer: Trainer, tmp_path: Path) -> None:
    trainer.save(tmp_path / "half.zip", dtype="bf16")
    Trainer.load(tmp_path / "half.zip").save(tmp_path / "whole.zip")
    Trainer.load(tmp_path / "whole.zip").save(tmp_path / "small.zip", dtype="int8")

    for name in ("whole", "small"):
        found = Trainer.load(tmp_path / f"{name}.zip").reproduce(keep=tmp_path / "again.zip")

        assert (found["same_bits"], found["metrics"]) == (True, {})
        with open_bundle(tmp_path / f"{name}.zip") as first, open_bundle(tmp_path / "again.zip") as second:
            # A trainer out of a file has no rows any more to say what rounding changes.
            assert [each.name for each in differences(first, second) if each.name != "storage.json"] == []
            assert [(each.storage() or {})["rounded"] for each in (first, second)] == [["bf16"]] * 2


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "int8"])
def test_a_bundle_of_weights_in_fewer_bytes_is_reproduced_in_as_few(
    dtype: str, trainer: Trainer, tmp_path: Path
) -> None:
    trainer.save(tmp_path / "small.zip", dtype=dtype)
    small = Trainer.load(tmp_path / "small.zip")

    found = small.reproduce(keep=tmp_path / "again.zip")

    assert (found["same_bits"], found["metrics"]) == (True, {})
    assert run("diff", tmp_path / "small.zip", tmp_path / "again.zip").exit_code == 0


@pytest.mark.parametrize(
    ("keep", "error", "message"),
    [
        ("https://127.0.0.1/again.zip", SaveError, "nothing is written to web servers"),
        ("memory://kept/", SaveError, "is a directory; name a file in it"),
        (".", IsADirectoryError, "name a file in it"),
        ("missing/again.zip", FileNotFoundError, "create it first"),
        (5, SaveError, r"^keep: got 5; expected the path of a file"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_trained(
    keep: str, error: type[Exception], message: str, trainer: Trainer
) -> None:
    trained: list[Any] = []
    callback = type("Notes", (Callback,), {"on_train_begin": lambda self, state: trained.append(state)})()

    with pytest.raises(error, match=message):
        trainer.reproduce(callbacks=[callback], keep=keep)

    assert trained == []


def test_data_for_a_dataset_that_takes_none_or_of_the_wrong_kind_are_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n")

    assert "takes no file" in run("reproduce", bundle, "--data", tmp_path / "rows.csv").stderr


def test_keys_are_made_and_never_overwritten_and_what_they_sign_is_verified(bundle: Path, tmp_path: Path) -> None:
    key, path = tmp_path / "mine", tmp_path / "signed.zip"
    path.write_bytes(bundle.read_bytes())
    assert run("keygen", key).exit_code == 0
    assert run("keygen", tmp_path / "other").exit_code == 0
    again = run("keygen", key)

    unsigned = run("verify", path, "--signed-by", f"{key}.pub")
    signed = run("sign", path, "--key", key)
    verified = run("verify", path, "--signed-by", f"{key}.pub")
    foreign = run("verify", path, "--signed-by", tmp_path / "other.pub")
    both = run("verify", path, "--signed-by", tmp_path / "other.pub", "--signed-by", f"{key}.pub")

    assert again.exit_code == 2
    assert key.stat().st_mode & 0o777 == 0o600
    assert [each.exit_code for each in (unsigned, signed, verified, foreign, both)] == [2, 0, 0, 2, 0]
    assert "is not signed" in unsigned.stderr
    assert "of a given key" in verified.stdout
    assert "which is none of the 1 given" in foreign.stderr
    (tmp_path / "taken.pub").touch()
    assert run("keygen", tmp_path / "taken").exit_code == 2
    assert not (tmp_path / "taken").exists()
    rows = tmp_path / "rows.csv"
    rows.write_text(",".join(map(str, range(4))) + "\n" + ",".join(["1"] * 4) + "\n")
    for command in (["predict", path, rows], ["estimate", path, "--repetitions", 1], ["reproduce", path]):
        assert run(*command, "--signed-by", f"{key}.pub").exit_code == 0, command
        assert run(*command, "--signed-by", tmp_path / "other.pub").exit_code == 2, command
    fingerprint = signed.stdout.split()[-1]
    assert f"says it is of the key of SHA-256 {fingerprint}" in run("inspect", path).stdout
    assert "not asked for" in run("verify", path).stdout


def test_a_trainer_signs_what_it_saves_and_loads_what_a_key_has_signed(
    trainer: Trainer, bundle: Path, tmp_path: Path
) -> None:
    private, public = generate_key()
    trainer.save(tmp_path / "signed.zip", sign_with=private)

    loaded = Trainer.load(tmp_path / "signed.zip", signed_by=public)

    assert loaded.verify()["verdict"] == "same bits"
    with pytest.raises(BundleError, match="is not signed") as caught:
        Trainer.load(bundle, signed_by=public)
    assert caught.value.reason == "signature"


def test_a_key_with_a_password_is_asked_for_it(bundle: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    private, _ = generate_key()
    key = serialization.load_pem_private_key(private, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
    )
    (tmp_path / "locked").write_bytes(locked)
    path = tmp_path / "signed.zip"
    path.write_bytes(bundle.read_bytes())

    assert run("sign", path, "--key", tmp_path / "locked").exit_code == 2
    assert run("sign", path, "--key", tmp_path / "locked", "--password", input="wrong\n").exit_code == 2
    assert run("sign", path, "--key", tmp_path / "locked", "--password", input="word\n").exit_code == 0
