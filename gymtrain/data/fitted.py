"""What scikit-learn fitted, as bytes that hold no pickle; and any of its transformers as a preprocessor."""

from __future__ import annotations

import inspect
import io
import json
import warnings
import zipfile
from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gymtrain.data.padding import ROWS_ALIKE, padded
from gymtrain.data.preprocessors import Preprocessor, State
from gymtrain.errors import BundleError, Fault, SaveError, SpecError, did_you_mean
from gymtrain.registry import find_foreign, foreign_arguments, foreign_names

# Types that skops does not vouch for and that fitted estimators are made of: each holds numbers, or is a function that
# computes a number. Nothing else out of a file is built.
_DISTANCES = ("BrayCurtis", "Canberra", "Chebyshev", "Euclidean", "Hamming", "Manhattan", "Minkowski")
TRUSTED = frozenset(
    {
        "numpy.dtype",
        "numpy.mean",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "sklearn._loss.loss.HalfTweedieLoss",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.cluster._bisect_k_means._BisectingTree",
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        *(f"sklearn.metrics._dist_metrics.{name}Distance64" for name in _DISTANCES),
    }
)


def dump(estimator: Any) -> bytes:
    """Write a fitted estimator, the same bytes for the same estimator.

    Raises:
        SaveError: It holds something that a reader would have no reason to trust.
    """
    import skops.io

    try:
        data = _canonical(skops.io.dumps(estimator))
    except (NotImplementedError, TypeError) as error:
        raise SaveError(f"{type(estimator).__name__} cannot be saved without pickle: {error}") from error
    unknown = sorted(set(skops.io.get_untrusted_types(data=data)) - TRUSTED)
    if unknown:
        raise SaveError(
            f"{type(estimator).__name__} holds {', '.join(unknown)}, which cannot be loaded without running code that "
            f"the file names; use arguments that are plain values, or an estimator without it"
        )
    return data


def load(data: bytes, trust: Collection[str] = ()) -> Any:
    """Read what `dump` wrote.

    Raises:
        BundleError: It is damaged, or holds a type that is not trusted.
    """
    import skops.io
    from sklearn.exceptions import InconsistentVersionWarning

    found = _unknown_to_skops(data)
    unknown = sorted(found - TRUSTED - set(trust))
    if unknown:
        raise BundleError(_refusal(unknown), reason="unknown_type")
    try:
        with warnings.catch_warnings():
            # Of another version of scikit-learn, of which a bundle warns once for all that is in it.
            warnings.simplefilter("ignore", InconsistentVersionWarning)
            return skops.io.loads(data, trusted=sorted(found))
    except Exception as error:
        raise _unreadable(error) from error


def refusal(data: bytes, trust: Collection[str] = ()) -> str | None:
    """Return why `load` would not build what is in the data, though it can be read; None if it would.

    Raises:
        BundleError: It is damaged.
    """
    unknown = sorted(_unknown_to_skops(data) - TRUSTED - set(trust))
    return _refusal(unknown) if unknown else None


def _unknown_to_skops(data: bytes) -> set[str]:
    import skops.io

    try:
        _refuse_growth(data)
        return set(skops.io.get_untrusted_types(data=data))
    except Exception as error:
        raise _unreadable(error) from error


def _refusal(unknown: list[str]) -> str:
    return f"a fitted scikit-learn object holds {', '.join(unknown)}; if you trust the file, pass trust={unknown!r}"


def _unreadable(error: Exception) -> BundleError:
    return BundleError(f"a fitted scikit-learn object cannot be read: {error}", reason="skops")


def _refuse_growth(data: bytes) -> None:
    """Refuse what would take more memory than the bytes do: `dump` stores, it does not compress."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("its members are compressed; expected them stored")
    if sum(member.file_size for member in members) > len(data):
        raise ValueError("its members claim more bytes than there are")


def _canonical(data: bytes) -> bytes:
    """Number the objects in the order in which they appear: skops names them by where they lay in memory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop("schema.json"))
    numbers: dict[object, int] = {}
    files: dict[str, str] = {}

    def renumber(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("__class__") in {"KDTree", "BallTree"}:
                # How often the tree was asked, which a prediction changes.
                for counter in node["content"]["content"][7:11]:
                    counter["content"] = "0"
            if isinstance(node.get("__id__"), int):
                # Two numbers that are equal may be one object or two, which means nothing.
                is_leaf = node.get("__loader__") == "JsonNode"
                key = (node["__class__"], node["content"]) if is_leaf else node["__id__"]
                node["__id__"] = numbers.setdefault(key, len(numbers) + 1)
            if isinstance(node.get("file"), str) and node["file"] in members:
                extension = node["file"].rpartition(".")[2]
                node["file"] = files.setdefault(node["file"], f"{len(files)}.{extension}")
            for item in node.values():
                renumber(item)
        elif isinstance(node, list):
            for item in node:
                renumber(item)

    renumber(schema)
    members = {files.get(name, name): _without_padding(name, content) for name, content in members.items()}
    members["schema.json"] = json.dumps(schema, separators=(",", ":")).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name), members[name])
    return target.getvalue()


def _without_padding(name: str, content: bytes) -> bytes:
    """Set what lies between the fields of an array of records to 0: it is whatever the memory held before."""
    if not name.endswith(".npy"):
        return content
    source = io.BytesIO(content)
    version = np.lib.format.read_magic(source)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    dtype = read_header(source)[2]
    if dtype.names is None:
        return content
    records = np.frombuffer(content, dtype, offset=source.tell())
    clean = np.zeros(len(records), dtype)
    for field in dtype.names:
        clean[field] = records[field]
    # As plain bytes: numpy copies records field by field, and leaves out what lies between.
    return content[: source.tell()] + clean.view(np.uint8).tobytes()


# The argument that names a class of scikit-learn: what the class has to have, and one that has it.
_ROLES = {"estimator": ("predict", "RandomForestClassifier"), "transformer": ("transform", "PCA")}


def resolve_estimator(key: str, given: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments of a component that hands them on to a class of scikit-learn.

    Args:
        key: The argument that names the class: `"estimator"` or `"transformer"`.
        given: What the spec gives.

    Returns:
        The arguments with the class's own defaults.

    Raises:
        SpecError: There is no such class, or it takes no such argument; paths are relative to the component.
    """
    rest = dict(given)
    name = rest.pop(key, None)
    method, example = _ROLES[key]
    if not isinstance(name, str):
        raise SpecError([Fault(key, f"got {name!r}; expected a class of scikit-learn such as {example!r}")])
    target = find_foreign("estimator", name)
    if target is None:
        hint = did_you_mean(name, foreign_names("estimator"))
        raise SpecError([Fault(key, f"scikit-learn has no public class {name!r}{hint}")])
    if not target.has_method(method):
        raise SpecError([Fault(key, f"{target.name} of scikit-learn has no {method}(); name a class that has it")])
    resolved, faults = foreign_arguments(target, rest, check_values=False)
    if faults:
        raise SpecError([Fault(place, message) for place, message in faults.items()])
    return {key: target.name, **resolved}


def build_estimator(name: str, arguments: dict[str, Any]) -> Any:
    """Make an estimator of scikit-learn by its name."""
    import importlib

    target = find_foreign("estimator", name)
    if target is None:
        raise LookupError(f"scikit-learn has no public class {name!r}")
    cls = getattr(importlib.import_module(target.module), target.name)
    # A spec has no tuples, and some classes take nothing else: RobustScaler its quantile_range.
    tuples = {name for name, each in inspect.signature(cls).parameters.items() if isinstance(each.default, tuple)}
    return cls(
        **{
            name: tuple(value) if name in tuples and isinstance(value, list) else value
            for name, value in arguments.items()
        }
    )


# Of many rows at once, scikit-learn computes some otherwise than the same rows in several calls.
_ROWS_AT_A_TIME = 256


class SklearnTransformer(Preprocessor):
    """Any transformer of scikit-learn.

    Args:
        transformer: The name of its class, such as `"PCA"`.
        arguments: The arguments of that class, under their own names.
    """

    def __init__(self, transformer: str, **arguments: Any) -> None:
        self._name, self._arguments = transformer, arguments

    @cached_property
    def fitted(self) -> Any:
        """The transformer. Made when it is fitted: a restored one is not asked for the arguments that it once took."""
        return build_estimator(self._name, self._arguments)

    @classmethod
    def resolve_arguments(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Check the arguments against those of the class in scikit-learn."""
        return resolve_estimator("transformer", given)

    @property
    def handles_missing(self) -> bool:  # type: ignore[override]
        """Whether the transformer says that it takes missing values."""
        from sklearn.utils import get_tags

        return bool(get_tags(self.fitted).input_tags.allow_nan)

    def fit(self, X: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        """Fit the transformer."""
        self.fitted.fit(X.reshape(len(X), -1), y)

    def transform(self, X: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what the transformer makes of rows, dense, shape (rows, features): of each the same in any call."""
        rows = X.reshape(len(X), -1)
        if len(rows) <= ROWS_ALIKE:
            return self._transform(padded(rows) if len(rows) else rows)[: len(rows)]
        starts = range(0, len(rows), _ROWS_AT_A_TIME)
        parts = [self._transform(padded(rows[start : start + _ROWS_AT_A_TIME])) for start in starts]
        return np.concatenate(parts)[: len(rows)]

    def _transform(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        result = self.fitted.transform(rows)
        return np.asarray(result.toarray() if hasattr(result, "toarray") else result)

    def save(self) -> State:
        """Return the transformer as bytes of skops."""
        return {"skops": dump(self.fitted)}

    def restore(self, state: State) -> None:
        """Take back the transformer."""
        self.fitted = load(state["skops"], state.get("trust", ()))
