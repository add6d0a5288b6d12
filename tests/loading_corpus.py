"""Bundles that open well and whose content somebody made to do harm once a trainer is made of it.

The numbers H26 to H50 name families, like those of bundle_corpus. `REFUSED` has the reason with which each must be
refused; what is in `HARMLESS` is text that nobody looks at: the trainer answers as if it were not there.
"""

from __future__ import annotations

import base64
import json
import marshal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from bundle_forge import Forge, take_apart
from hostile_states import places_in, replaced

Place = tuple[str | int, ...]
Change = Callable[[Any], Any]

SPEC, SCHEMA, RESULTS = "spec.json", "schema.json", "results.json"
WEIGHTS = "weights.safetensors"
MODEL: Place = ("model", "model")
TRAINING: Place = ("model", "training")
SCALER: Place = ("dataset", "preprocessors", 0)
LABELS: Place = ("labels",)
CODE = base64.b64encode(marshal.dumps(compile("open('run', 'w')", "x", "exec"))).decode()
ADDRESSES = ("/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/", "\\\\srv\\x", "s3://bucket/x")
# Imported, it would leave a file: somebodys_module.py is put on the path by the test.
MODULE = "somebodys_module"


class Case(NamedTuple):
    """A bundle made of a good one: of `network`, `frame` or `estimator`."""

    name: str
    of: str
    reason: str
    message: str
    make: Callable[[Forge], Forge]

    def build(self, trained: dict[str, bytes]) -> bytes:
        return self.make(take_apart(trained[self.of])).pack()


def changed(member: str, place: Place, value: Any) -> Callable[[Forge], Forge]:
    """Put a value in a place of a JSON member; one that is not there yet is added."""

    def make(forge: Forge) -> Forge:
        tree = json.loads(forge.part(member).content)
        return forge.replace(member, json.dumps(replaced(tree, place, value)).encode())

    return make


def of_tensors(member: str, change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Forge], Forge]:
    """Change the arrays of a member."""

    def make(forge: Forge) -> Forge:
        arrays = {key: array.copy() for key, array in safetensors.numpy.load(forge.part(member).content).items()}
        change(arrays)
        return forge.replace(member, safetensors.numpy.save(arrays))

    return make


def as_dtype(dtype: str) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda arrays: arrays.update({"0.weight": arrays["0.weight"].astype(dtype)})


def filled(name: str, value: float, at: Any = ...) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda arrays: arrays[name].__setitem__(at, value)


def spec_cases() -> Iterator[tuple[str, str, str, Callable[[Forge], Forge]]]:
    """Yield name, reason, message and how it is made, of the ones that are about the spec."""
    names = ("os.system", "subprocess.Popen", "builtins.eval", "torch.load", "torch.hub.load", "pickle.loads")
    for place in (MODEL, SCALER):
        for name in (*names, f"{MODULE}.Net", "os"):
            yield f"H26 {place[-2:]} {name}", "unknown_type", name, changed(SPEC, (*place, "type"), name)
        for name in ("os:system", "builtins:eval", "torch:load", f"{MODULE}:Net"):
            number = "H28" if MODULE in name else "H26"
            yield f"{number} {place[-2:]} {name}", "unknown_type", name, changed(SPEC, (*place, "type"), name)
    yield (
        "H29 a name that others registered",
        "unknown_type",
        "somebodys_net",
        changed(SPEC, (*MODEL, "type"), "somebodys_net"),
    )
    for key in (
        "_target_",
        "__class__",
        "__reduce__",
        "_instantiator",
        "$ref",
        "class_name",
        "module",
        "registered_name",
    ):
        for place in (MODEL, SCALER, TRAINING, ("dataset",), ()):
            yield f"H27 {key} in {place}", "spec", key.strip("$"), changed(SPEC, (*place, key), "os.system")
    for key, value in {
        "safe_mode": False,
        "allow_pickle": True,
        "trusted": ["os:system"],
        "trust": ["os:system"],
        "GYMTRAIN_TRUST": "1",
    }.items():
        for place in (MODEL, SCALER, TRAINING, ()):
            yield f"H31 {key} in {place}", "spec", key, changed(SPEC, (*place, key), value)
    for place in ((*MODEL, "activation"), (*MODEL, "code"), (*TRAINING, "metrics"), (*SCALER, "source")):
        yield f"H30 {place}", "spec", str(place[-1]), changed(SPEC, place, CODE)
    yield "H30 a lambda", "unknown_type", "lambda", changed(SPEC, (*MODEL, "type"), "lambda: 0")
    for hidden in (
        [10**9],
        [2**40],
        [64] * 100_000,
        [0],
        [-1],
        [1.5],
        [True],
        ["64"],
        [10**30],
        [None],
        {},
        "64",
        [[8]],
        -8,
    ):
        number = "H33" if str(hidden)[:3] in ("[10", "[64") or hidden == [2**40] else "H34"
        yield f"{number} hidden {str(hidden)[:20]}", "spec", "hidden", changed(SPEC, (*MODEL, "hidden"), hidden)
    for hidden in ([1_000_000] * 1000, [1_000_000, 1_000_000]):
        yield (
            f"H33 hidden {str(hidden)[:20]} {len(hidden)}",
            "weights_names|weights_shape",
            WEIGHTS,
            changed(SPEC, (*MODEL, "hidden"), hidden),
        )
    for key, values in {"epochs": (-1, 1.5, True, "2"), "batch_size": (0, -1, "32")}.items():
        for value in values:
            yield f"H34 {key} {value!r}", "spec", key, changed(SPEC, (*TRAINING, key), value)
    for place, value in (
        (("model",), []),
        (("model",), None),
        (("dataset",), "iris"),
        (MODEL, [MODEL]),
        (("tracking",), 1),
    ):
        yield f"H40 {place} {value!r}", "spec", str(place[0]), changed(SPEC, place, value)
    for name in ("%s%n", "{0.__class__}", "${env:HOME}", "\x1b[2J\nError: all is well", "<script>alert(1)</script>"):
        yield f"H42 {name!r}", "unknown_type", "", changed(SPEC, (*MODEL, "type"), name)


def schema_cases() -> Iterator[tuple[str, str, str, Callable[[Forge], Forge]]]:
    for value in ([0], [-1], [1.5], [True], ["4"], [10**30], [], 4, None, ..., [[4]], [None]):
        for place in (("input_shape",), ("features", "shape")):
            yield f"H34 {place[-1]} {value!r}", "field_value", place[-1], changed(SCHEMA, place, value)
    for value in ([2**40], [1000, 1000, 1000], [5], [4, 1]):
        yield (
            f"H33 input_shape {value}",
            "weights_shape|preprocess|inconsistent|weights_names",
            "",
            changed(SCHEMA, ("input_shape",), value),
        )
    for value in ("U1000000000", "O", "os.system", "i4,f8", "float16", 4, None, {"type": "os:system"}):
        yield (
            f"H40 features.dtype {value!r}",
            "field_value",
            "features.dtype",
            changed(SCHEMA, ("features", "dtype"), value),
        )
        if value != "float16":
            yield f"H40 labels.dtype {value!r}", "field_value", "dtype", changed(SCHEMA, (*LABELS, "dtype"), value)
    for value in (
        [],
        [0, 0, 1],
        [0, 1, "2"],
        [[0], [1], [2]],
        [0, 1, None],
        "abc",
        {},
        None,
        ...,
        [0, 1, 2.5],
        [0, 1, 2**63],
    ):
        yield f"H40 classes {value!r}", "field_value", "classes", changed(SCHEMA, (*LABELS, "classes"), value)
    for value in ("guess", None, [], {}, "regression", "binary", ...):
        yield f"H40 task {value!r}", "field_value", "labels", changed(SCHEMA, (*LABELS, "task"), value)
    yield (
        "H40 more classes than outputs",
        "weights_shape",
        WEIGHTS,
        changed(SCHEMA, (*LABELS, "classes"), list(range(9))),
    )
    yield "H41 1e5 classes", "weights_shape", WEIGHTS, changed(SCHEMA, (*LABELS, "classes"), list(range(100_000)))
    yield (
        "H41 1e6 classes",
        "too_large",
        "values, more than",
        changed(SCHEMA, (*LABELS, "classes"), list(range(1_000_000))),
    )
    for place in (("features",), ("labels",), ("features", "left_out")):
        for value in (None, [1], 1, ...):
            yield f"H40 {place} {value!r}", "field_value", place[-1], changed(SCHEMA, place, value)


def tensor_cases() -> Iterator[tuple[str, str, str, Callable[[Forge], Forge]]]:
    def of_weights(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Forge], Forge]:
        return of_tensors(WEIGHTS, change)

    yield (
        "H44 10 000 tensors",
        "weights_names",
        "9995 more",
        of_weights(lambda arrays: arrays.update({f"x{index}": np.zeros(1) for index in range(10_000)})),
    )
    for dtype in ("f8", "f2", "i1", "?", "i4"):
        yield f"H47 {dtype}", "weights_dtype", "'0.weight' is torch", of_weights(as_dtype(dtype))
    yield "H48 missing", "weights_names", "'0.bias'", of_weights(lambda arrays: arrays.pop("0.bias"))
    yield "H48 extra", "weights_names", "'x'", of_weights(lambda arrays: arrays.update(x=np.zeros(1)))
    yield "H48 renamed", "weights_names", "'x'", of_weights(lambda arrays: arrays.update(x=arrays.pop("0.bias")))
    yield (
        "H48 transposed",
        "weights_shape",
        r"shape \(4, 8\); the model has",
        of_weights(lambda arrays: arrays.update({"0.weight": np.ascontiguousarray(arrays["0.weight"].T)})),
    )
    for value in (np.nan, np.inf, -np.inf):
        yield f"H49 one {value}", "weights_nonfinite", "'0.weight' hold", of_weights(filled("0.weight", value, (1, 2)))
    for name, place, value in (
        ("best", ("best",), [1]),
        ("hardware_info", ("hardware_info",), {}),
        ("metrics", ("metrics",), {"test/loss": "0.5"}),
        ("stop_reason", ("stop_reason",), []),
        ("data", ("data",), {"train": {"rows": -1, "sha256": "0"}}),
    ):
        yield f"H50 results {name}", "field_value", rf"results\.json: {name}", changed(RESULTS, place, value)
    yield "H49 all", "weights_nonfinite", "'2.bias' hold", of_weights(filled("2.bias", np.nan))
    yield "H49 far beyond", "weights_nonfinite", "'2.bias' hold", of_weights(filled("2.bias", np.float32(np.inf), 0))

    scaler = "preprocessors/000.safetensors"
    for value in (0.0, np.nan, np.inf):
        for at in (0, ...):
            yield (
                f"H50 scale {value} {at}",
                "preprocess",
                "self-check|finite",
                of_tensors(scaler, filled("scale", value, at)),
            )
    for change, what in (
        (lambda arrays: arrays.update(mean=np.ones(5)), "of another length"),
        (lambda arrays: arrays.update(mean=np.ones((4, 4))), "of two axes"),
        (lambda arrays: arrays.update(scale=np.ones(0)), "of nothing"),
        (lambda arrays: arrays.update(mean=np.ones(4, np.complex64)), "complex"),
    ):
        yield f"H50 {what}", "preprocess", "preprocessors|self-check", of_tensors(scaler, change)
    yield "H50 missing", "inconsistent", "scale", of_tensors(scaler, lambda arrays: arrays.pop("scale"))
    yield "H50 state is a list", "inconsistent", "", changed("preprocessors/000.json", ("state",), [1])
    yield (
        "H50 fewer than the spec names",
        "inconsistent",
        "2 preprocessors",
        changed(SPEC, ("dataset", "preprocessors"), [{"type": "standard_scaler"}, {"type": "divide", "factor": 2.0}]),
    )


def frame_cases() -> Iterator[tuple[str, str, str, Callable[[Forge], Forge]]]:
    columns: Place = ("features", "columns")
    for value in ([], [1], {}, [{"name": "a"}], [{"name": 1, "kind": "text"}], "abc", [{"name": "a", "kind": "O"}]):
        yield f"H40 columns {value!r}", "field_value", "columns", changed(SCHEMA, columns, value)
    yield (
        "H50 two columns of one name",
        "field_value",
        "3 columns with 2 names",
        changed(SCHEMA, (*columns, 1, "name"), "age"),
    )
    yield (
        "H50 a column of another name",
        "preprocess|inconsistent",
        "",
        changed(SCHEMA, (*columns, 0, "name"), "x\x1b[2J"),
    )
    yield "H50 a column of another kind", "preprocess|inconsistent", "", changed(SCHEMA, (*columns, 0, "kind"), "text")
    state: Place = ("state",)
    for key, value in (
        ("numbers", ["age", "age"]),
        ("numbers", [1]),
        ("numbers", None),
        ("categories", []),
        ("categories", {"age": ["x"]}),
        ("categories", {"city": 1}),
        ("numbers", ...),
    ):
        yield (
            f"H50 tabular {key} {value!r}",
            "preprocess|inconsistent",
            "",
            changed("preprocessors/000.json", (*state, key), value),
        )
    for key in ("fill", "offset", "divisor"):
        for value in (np.nan, np.inf, 0.0)[: 3 if key == "divisor" else 2]:
            yield (
                f"H50 tabular {key} {value}",
                "preprocess",
                "",
                of_tensors("preprocessors/000.safetensors", filled(key, value)),
            )
    deep = b'{"age": ' + b"[" * 100_000
    for what, content in (
        ("nested", deep),
        ("a number", b"1"),
        ("no JSON", b"\xff\xfe"),
        ("a list", b'{"age": [[1]], "city": [1]}'),
    ):
        yield (
            f"H37 rows {what}",
            "json|field_value|inconsistent|preprocess",
            "",
            of_tensors(
                "selfcheck.safetensors", lambda arrays, c=content: arrays.update(rows=np.frombuffer(c, np.uint8))
            ),
        )


def estimator_cases() -> Iterator[tuple[str, str, str, Callable[[Forge], Forge]]]:
    for name in ("os.system", "Popen", MODULE, "../../x", None, [], "LinearRegression "):
        yield f"H26 estimator {name!r}", "spec|unknown_type", "estimator", changed(SPEC, (*MODEL, "estimator"), name)
    for member in ("model.skops", "preprocessors/001.skops"):
        for name, content in SKOPS.items():
            yield (
                f"{name} in {member}",
                "skops|unknown_type",
                "scikit-learn",
                lambda f, m=member, c=content: f.replace(m, c),
            )


def _skops(schema: Any, **members: bytes) -> bytes:
    import io
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", schema if isinstance(schema, bytes) else json.dumps(schema))
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def _node(module: str, name: str, loader: str, **more: Any) -> dict[str, Any]:
    return {
        "__class__": name,
        "__module__": module,
        "__loader__": loader,
        "protocol": 2,
        "_skops_version": "0.16.0",
    } | more


SKOPS = {
    "H01 no zip": b"skops",
    "H26 os.system": _skops(_node("os", "system", "FunctionNode", content="os.system")),
    "H26 subprocess.Popen": _skops(_node("subprocess", "Popen", "ObjectNode", content={"__loader__": "JsonNode"})),
    "H26 builtins.eval": _skops(_node("builtins", "eval", "ReduceNode", content={})),
    "H26 operator": _skops(_node("operator", "methodcaller", "OperatorFuncNode", attrs={})),
    "H28 a module that runs": _skops(_node(MODULE, "Net", "ObjectNode", content={})),
    "H28 a type of it": _skops(_node(MODULE, "Net", "TypeNode", content={"__module__": MODULE, "__class__": "Net"})),
    "H37 nested": _skops(b"[" * 100_000),
    "H40 no node": _skops([]),
    "H40 nothing": _skops({}),
}


def _cases() -> Iterator[Case]:
    for of, cases in (
        ("network", [*spec_cases(), *schema_cases(), *tensor_cases()]),
        ("frame", frame_cases()),
        ("estimator", estimator_cases()),
    ):
        for name, reason, message, make in cases:
            yield Case(name, of, reason, message, make)


REFUSED = list(_cases())


def harmless(trained: dict[str, bytes]) -> Iterator[tuple[str, str, bytes]]:
    """Yield name, of which bundle, and bytes: an address in the place of each text of the JSON, and more such text.

    Some are refused, where a text has to be one of a few; none may be looked at.
    """
    for of, content in trained.items():
        forge = take_apart(content)
        for part in forge.parts:
            member = part.name.decode()
            if not member.endswith(".json") or member == "manifest.json":
                continue
            tree = json.loads(part.content)
            for index, place in enumerate(places_in(tree)):
                value: Any = tree
                for key in place:
                    value = value[key]
                if isinstance(value, str):
                    address = ADDRESSES[index % len(ADDRESSES)]
                    yield f"H32 {of} {member} {place}", of, changed(member, place, address)(take_apart(content)).pack()
    for member in (SCHEMA, RESULTS):
        for key in ("_target_", "__class__", "code", "safe_mode", "trusted"):
            yield f"H31 {member} {key}", "network", changed(member, (key,), CODE)(take_apart(trained["network"])).pack()
    of_others = ("dataset", "dataset", "type"), (*TRAINING, "loss"), ("tracking", "trackers")
    for place, value in zip(
        of_others, (f"{MODULE}:Rows", {"type": f"{MODULE}:Loss"}, [{"type": f"{MODULE}:T"}]), strict=True
    ):
        yield f"H28 {place}", "network", changed(SPEC, place, value)(take_apart(trained["network"])).pack()
