"""What a training came to, and what a bundle is, as tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from gymtrain.cli.console import Console
from gymtrain.cli.terminal import printable
from gymtrain.errors import BundleError, some
from gymtrain.tracking import bundled_run

PARTS = ("train", "val", "test")
# What is known of the environment that is no version of a library.
_MACHINE = ("cpu", "cores", "gpu", "device", "platform", "host")
_COMMIT = ("git_commit", "git_branch", "git_dirty")
_SHOWN = 20
_POINTS = 11


def print_result(result: dict[str, Any], saved: str | None) -> None:
    """Print what `Trainer.train` returned: the metrics of the epoch whose weights are kept, and where the run is."""
    console = Console()
    console.print(_metrics_table(result))
    facts = {
        "status": f"{result['status']}, {_text(result['stop_reason'])}, after {result['elapsed']['total']:.1f} s",
        "weights": _kept(result["best"]),
        "run": result["run"]["run_dir"],
        "bundle": saved,
        "compare": result["run"]["ui"],
    }
    print_lines(console, facts)


def print_bundle(path: Path, content: dict[str, Any]) -> None:
    """Print what `gymtrain.inspect` returned.

    Raises:
        BundleError: It is verified, but does not say what the bundle of a trainer says.
    """
    results = content["results"]
    try:
        facts = dict(_facts(path, content))
        metrics = _metrics_table(results) if results.get("metrics") else None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        message = (
            f"{path}: the members do not fit together: {type(error).__name__}: {error}; --json shows what they hold"
        )
        raise BundleError(message, reason="inconsistent") from error
    console = Console()
    print_lines(console, facts)
    if metrics is not None:
        console.print(metrics)
    members = Table("member", "bytes", "SHA-256")
    for name, member in content["manifest"]["members"].items():
        members.add_row(name, f"{member['size']:,}", member["sha256"][:16])
    console.print(members)
    for line in content["readme"].splitlines():
        console.print(Text(printable(line)), soft_wrap=not console.is_terminal)


def print_estimate(found: dict[str, Any]) -> None:
    """Print what `Trainer.estimate` returned."""
    console = Console()
    parameters, latency = found["parameters"], found["latency_ms"]
    facts = {
        "parameters": parameters
        and f"{parameters['total']:,}, of which {parameters['trainable']:,} trainable, {parameters['frozen']:,} frozen",
        "bytes": found["bytes"] and ", ".join(f"{name} {size:,}" for name, size in found["bytes"].items()),
        "activations": found["activation_bytes"] and f"{found['activation_bytes']:,} bytes for a row, at most",
        "one row": f"{latency['mean']:.3f} ± {latency['std']:.3f} ms in {found['repetitions']} predictions",
        "percentiles": ", ".join(f"{name} {latency[name]:.3f} ms" for name in ("p50", "p95", "p99")),
        "measured on": f"{found['device']}, {found['threads']} threads",
    }
    print_lines(console, facts)
    speeds = Table("rows in a call", "rows per second")
    for size, speed in found["rows_per_second"].items():
        speeds.add_row(size, f"{speed:,.0f}")
    console.print(speeds)


def print_learning_rates(found: dict[str, Any]) -> None:
    """Print what `Trainer.find_lr` returned: the suggestion, and some points of the curve."""
    console = Console()
    rates, losses = found["curve"]["lr"], found["curve"]["loss"]
    facts = {
        "suggestion": "none, because the loss does not fall" if found["lr"] is None else f"{found['lr']:.2g}",
        "steps": str(len(rates)),
        "run": found["run"]["run_dir"],
        "compare": found["run"]["ui"],
    }
    print_lines(console, facts)
    table = Table("learning rate", "smoothed loss")
    last = len(rates) - 1
    for position in sorted({round(last * part / (_POINTS - 1)) for part in range(_POINTS)}):
        table.add_row(f"{rates[position]:.2g}", f"{losses[position]:.4g}")
    console.print(table)


def _facts(path: Path, content: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    manifest, spec, results = content["manifest"], content["spec"], content["results"]
    features, labels = content["schema"]["features"], content["schema"]["labels"]
    yield "bundle", f"{path}, {path.stat().st_size:,} bytes"
    kind = "a checkpoint" if _is_checkpoint(manifest) else "a trained model"
    yield "format", f"{manifest['format']} {manifest['format_version']}, {kind}"
    yield "created", manifest["created"]
    if content["signature"] is not None:
        signer = content["signature"]["fingerprint"]
        yield "signature", f"says it is of the key of SHA-256 {signer}, which `gymtrain verify --signed-by` checks"
    yield "task", labels["task"]
    yield "classes", some(labels["classes"], 10) if "classes" in labels else None
    yield "outputs", _text(labels.get("names") or labels.get("outputs"))
    yield "features", _features(features)
    yield "dataset", _component(spec["dataset"]["dataset"])
    yield "preprocessors", ", ".join(map(_component, _listed(spec["dataset"]["preprocessors"]))) or "none"
    yield "model", _component(spec["model"]["model"])
    yield (
        "training",
        _arguments({name: value for name, value in spec["model"]["training"].items() if value is not None}),
    )
    yield "spec SHA-256", _text(results.get("spec_sha256"))
    data = results.get("data") or {}
    for part in PARTS:
        if part in data:
            yield f"{part} data", f"{data[part]['rows']:,} rows, SHA-256 {data[part]['sha256']}"
    yield "left out", _left_out(results.get("bad_samples"))
    yield "weights", _kept(results.get("best"))
    yield "stored", _storage(content["storage"] or {})
    yield "elapsed", _seconds(results["elapsed"]) if results.get("elapsed") else None
    environment = dict(bundled_run(path, content).environment)
    yield "machine", _listing({name: environment.pop(name) for name in _MACHINE if name in environment})
    yield "commit", _listing({name: environment.pop(name) for name in _COMMIT if name in environment})
    yield "versions", _listing(environment)


def _storage(said: dict[str, Any]) -> str | None:
    """What is particular about how the tensors are written; whatever somebody wrote into a file."""
    reduced, portable = said.get("reduced"), said.get("portable")
    told = [f"as {_text(reduced.get('to'))}"] if isinstance(reduced, dict) else []
    told += [f"{len(said['tied'])} tied tensors once"] if isinstance(said.get("tied"), dict) else []
    if isinstance(portable, dict):
        told += [f"also as ONNX, whose scores differ by up to {_value(portable.get('difference'), None)}"]
    return ", ".join(told) or None


def _left_out(bad: dict[str, Any] | None) -> str | None:
    return None if bad is None else f"{bad['count']:,} images that could not be used: {'; '.join(bad['first'])}"


def _is_checkpoint(manifest: dict[str, Any]) -> bool:
    return any(name.startswith("training/") for name in manifest["members"])


def _listing(values: dict[str, str]) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items())) or None


def _metrics_table(result: dict[str, Any]) -> Table:
    metrics = result["metrics"]
    present = [part for part in PARTS if any(name.startswith(f"{part}/") for name in metrics)]
    table = Table("metric", *present)
    for name in sorted({key.partition("/")[2] for key in metrics}, key=lambda name: (name != "loss", name)):
        values = (_value(metrics.get(f"{part}/{name}"), result.get("best")) for part in present)
        table.add_row(*(Text(printable(cell)) for cell in (name, *values)))
    return table


def _value(value: Any, best: dict[str, Any] | None) -> str:
    """A number, or of a list by epoch the number of the epoch whose weights are kept."""
    if isinstance(value, list):
        value = None if not value else value[-1 if best is None else best["epoch"] - 1]
    return f"{value:.4g}" if isinstance(value, int | float) else _text(value) or ""


def _kept(best: dict[str, Any] | None) -> str:
    if best is None:
        return "of the last epoch"
    return f"of epoch {best['epoch']}, the best by {best['metric']} ({_value(best['value'], None)})"


def _features(features: dict[str, Any]) -> str:
    if features["dtype"] == "image":
        return f"images of any size, up to {features['max_pixels']:,} pixels: paths, bytes, arrays of pixels"
    if features["columns"] is None:
        return f"{features['dtype']} of shape {tuple(features['shape'])}"
    columns = [f"{column['name']} ({column['kind']})" for column in features["columns"]]
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    return ", ".join(columns[:_SHOWN]) + more


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _component(component: Any) -> str:
    if not isinstance(component, dict):
        return _text(component) or ""
    arguments = {name: value for name, value in component.items() if name != "type" and value is not None}
    return f"{component['type']}({_arguments(arguments)})" if arguments else str(component["type"])


def _arguments(arguments: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={_component(value) if _is_component(value) else _short(value)}" for name, value in arguments.items()
    )


def _is_component(value: Any) -> bool:
    return isinstance(value, dict) and "type" in value


def _short(value: Any, limit: int = 60) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _seconds(elapsed: dict[str, float]) -> str:
    """The longest first, which is the total."""
    longest = sorted(elapsed.items(), key=lambda item: -item[1])
    return ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in longest)


def print_lines(console: Console, facts: dict[str, str | None]) -> None:
    """Print one fact to a line; in a pipe lines are not broken, so that what they hold can be copied."""
    width = max(map(len, facts))
    for name, value in facts.items():
        if value is not None:
            console.print(
                Text.assemble((f"{name:<{width}}  ", "bold"), printable(value)), soft_wrap=not console.is_terminal
            )
