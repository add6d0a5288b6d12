"""The trainer: three dicts in, a tracked run out, one zip that predicts anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymtrain.errors import BundleError, Fault, GymtrainError, InputError, NotTrainedError, SaveError, SpecError
from gymtrain.specs import Dataset, Experiment, Model, Tracking, read_spec_file, spec_sha256

# The rooms behind this one load torch, which takes seconds: they are imported where they are needed, so that a spec is
# checked in milliseconds.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from gymtrain.bundle import PrivateKey, Readable, SignedBy, Verification, Verify, Writable
    from gymtrain.data.schema import Features
    from gymtrain.models.tasks import Task
    from gymtrain.trainer.predictor import Predictor
    from gymtrain.training.callbacks import Callback

Spec = Mapping[str, Any]


class Trainer:
    """An experiment: data, model and tracking, described by three specs.

    Args:
        dataset: Where the rows come from and what happens to them; a dict or a `gymtrain.Dataset`.
        model: What learns and how; a dict or a `gymtrain.Model`.
        tracking: Where runs are written down; a dict or a `gymtrain.Tracking`. Without it, under `runs/` alone.

    Raises:
        SpecError: Everything that is wrong with the three, at once.

    Example:
        >>> trainer = Trainer(dataset={"dataset": {"type": "iris"}}, model={"model": {"type": "linear"}})
        >>> trainer.to_dict()["model"]["training"]["batch_size"]
        32
    """

    def __init__(self, dataset: Spec | Dataset, model: Spec | Model, tracking: Spec | Tracking | None = None) -> None:
        self._experiment = Experiment(dataset=dataset, model=model, tracking={} if tracking is None else tracking)
        self._predictor: Predictor | None = None
        self._learned: dict[str, Any] | None = None
        self._verification: Verification | None = None
        self.result: dict[str, Any] | None = None
        """What the last `train()` returned, or would have if it had not raised; None before."""

    @classmethod
    def from_dict(cls, spec: Spec) -> Trainer:
        """Make a trainer from one dict with the keys `dataset`, `model` and, optionally, `tracking`.

        Raises:
            SpecError: A key is missing or unknown, or a spec is wrong.
        """
        given: object = spec
        if not isinstance(given, Mapping):
            expected = "expected a dict with the keys 'dataset', 'model' and 'tracking'"
            raise SpecError([Fault("spec", f"got a {type(given).__name__}; {expected}")])
        return cls._of(Experiment(**given))

    @classmethod
    def from_file(cls, path: str | Path) -> Trainer:
        """Make a trainer from a JSON or YAML file that holds what `from_dict` takes.

        Raises:
            FileNotFoundError: There is no such file.
            SpecError: The file cannot be read, or the spec is wrong.
        """
        _check_path(path, lambda message: SpecError([Fault("path", message)]))
        return cls.from_dict(read_spec_file(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved spec: plain values with every default written out; live data by its fingerprint."""
        return self._experiment.to_dict()

    @property
    def spec_sha256(self) -> str:
        """The SHA-256 of the resolved spec, in hexadecimal: it names the configuration."""
        return spec_sha256(self.to_dict())

    def train(
        self,
        callbacks: Sequence[Callback] = (),
        resume: str | Path | bool = False,
        *,
        fast_dev_run: bool = False,
        overfit_batches: int = 0,
    ) -> dict[str, Any]:
        """Run the experiment.

        Args:
            callbacks: Told of what happens, in this order.
            resume: `"auto"` to go on from the newest checkpoint under `tracking.root` that fits the spec, or to begin
                where there is none; the path of a checkpoint or of the directory of a run; False to begin.
            fast_dev_run: Try everything in seconds: one step, validation and test on one batch, no trackers and no
                checkpoints. Nothing is learned: the trainer keeps the model that it has, if it has one.
            overfit_batches: Train on this many batches alone, the same in every epoch, and validate on them: a model
                that can learn brings `train/loss` near 0. There are no augmentation, no test part and no checkpoints,
                and the trainer keeps the model that it has. 0 for a real training.

        Returns:
            A dict that JSON can hold: `elapsed` (seconds by stage, and `total`), `metrics` (`train/loss`, `val/…` as
            lists by epoch, `test/…` as numbers), `best`, `status`, `stop_reason`, `hardware_info` and `run` (ids,
            directories, and the command that opens the UI). It is also written to `result.json` in the run's
            directory, and kept in `trainer.result`, when training fails too.

        Raises:
            SpecError: `fast_dev_run` or `overfit_batches` is no such value, or does not go with the rest.
            DataError: The rows cannot be trained on.
            TrainingError: The model cannot be made or fitted; `NonFiniteLossError` when the loss becomes NaN.
            CallbackError: A callback raised.

        Example:
            >>> import tempfile
            >>> trainer = Trainer(
            ...     dataset={"dataset": {"type": "iris"}},
            ...     model={"model": {"type": "linear"}, "training": {"epochs": 2}},
            ...     tracking={"root": tempfile.mkdtemp()},
            ... )
            >>> result = trainer.train()
            >>> result["status"], len(result["metrics"]["train/loss"])
            ('FINISHED', 2)
        """
        from gymtrain.trainer.sanity import make_run
        from gymtrain.training.callbacks import Callback

        run = make_run(
            self._experiment,
            [callbacks] if isinstance(callbacks, Callback) else callbacks or (),
            resume,
            fast_dev_run=fast_dev_run,
            overfit_batches=overfit_batches,
        )
        try:
            run.execute()
        finally:
            self.result = run.result
            if run.predictor is not None and not (fast_dev_run or overfit_batches):
                # A run that learned nothing leaves the model of the one before, and the result that belongs to it.
                self._predictor, self._learned, self._verification = run.predictor, run.result, None
        return self.result

    def find_lr(self, minimum: float = 1e-7, maximum: float = 10.0, steps: int = 100) -> dict[str, Any]:
        """Find a learning rate by the range test: a fresh model is trained while the rate grows from step to step.

        The trainer stays as it is: nothing is learned, and the spec keeps its learning rate.

        Args:
            minimum: The first learning rate, above 0.
            maximum: The last one; the test ends before where the loss is four times its best value, or no number.
            steps: Optimizer steps, at least 10; the rate is multiplied by the same factor after each.

        Returns:
            A dict that JSON can hold: `lr`, the rate at which the smoothed loss falls fastest, None where it does not
            fall; `curve` with `lr` and the smoothed `loss` as lists by step; and `run`, as `train` returns it. The
            curve is also a figure in the run's directory and in the trackers.

        Raises:
            SpecError: The range is none, or the optimizer has no learning rate.
            DataError: The rows cannot be trained on.
            TrainingError: The model is of another library than torch, or cannot be fitted; `NonFiniteLossError` when
                the loss is no number from the beginning.

        Example:
            >>> import tempfile
            >>> trainer = Trainer(
            ...     dataset={"dataset": {"type": "iris"}},
            ...     model={"model": {"type": "mlp"}},
            ...     tracking={"root": tempfile.mkdtemp()},
            ... )
            >>> found = trainer.find_lr(steps=50)
            >>> 1e-7 < found["lr"] < 10.0
            True
        """
        from gymtrain.trainer.learning_rate import find_lr

        return find_lr(self._experiment, minimum, maximum, steps)

    def evaluate(self, X: Any, y: Any) -> dict[str, float]:
        """Return the loss (of torch models) and the metrics of the spec on raw rows and their labels.

        Args:
            X: Rows, as `predict` takes them.
            y: Their labels or targets, shape (rows,) or (rows, outputs).

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            InputError: The rows do not fit the training data, or `y` does not fit the rows.
        """
        from gymtrain.trainer.scoring import evaluate

        return evaluate(self._trained("evaluate"), self._experiment.model.training, X, y)

    def predict(self, X: Any, *, exact: bool = True) -> npt.NDArray[Any]:
        """Return the labels of raw rows.

        Args:
            X: Rows in the dataset's own units: an array or tensor of shape (rows, …), a frame of pandas, polars or
                pyarrow with the columns of the training data in any order, a list of rows or of dicts. There may be
                0 rows.
            exact: On the CPU, give each row the same bits whatever other rows are in the call. Without it, the last
                digits may differ, and a call of a few rows takes less time.

        Returns:
            Labels of the training data of shape (rows,); zeros and ones of shape (rows, labels) for several labels;
            float numbers of shape (rows,) or (rows, outputs) for a regression.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            InputError: The rows do not fit the training data.
        """
        _check_flags(InputError, exact=exact)
        return self._trained("predict").predict(X, exact=exact)

    def predict_proba(self, X: Any, *, exact: bool = True) -> npt.NDArray[np.floating[Any]]:
        """Return the probability of each class for raw rows.

        Args:
            X: Rows, as `predict` takes them.
            exact: As for `predict`.

        Returns:
            Float of shape (rows, classes), also for two classes, with columns in the order of `classes_`. Rows sum
            to 1, but for several labels, each of which has a probability of its own.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            TaskError: It is a regression, or the model gives no probabilities.
            InputError: The rows do not fit the training data.
        """
        _check_flags(InputError, exact=exact)
        return self._trained("predict_proba").predict_proba(X, exact=exact)

    def predict_blocks(
        self, source: Any, *, proba: bool = False, block_rows: int = 8192, exact: bool = True
    ) -> Iterator[npt.NDArray[Any]]:
        """Predict any number of rows in the memory that a block of them takes.

        Args:
            source: The path of a CSV file with a header or of a Parquet file; an iterator over blocks, each of which
                is what `predict` takes; or rows, as `predict` takes them, which are cut into blocks.
            proba: Yield what `predict_proba` returns, instead of what `predict` does.
            block_rows: The most rows of a block, where `source` is a file or rows.
            exact: As for `predict`.

        Returns:
            An iterator over the answers to the blocks, in order. A block is read when its answer is asked for.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            TaskError: Probabilities are asked for and there are none.
            InputError: The source is none of these, or lacks a column; while iterating, rows that do not fit the
                training data, with the block that they are in.

        Example:
            >>> import tempfile
            >>> trainer = Trainer(
            ...     dataset={"dataset": {"type": "iris"}},
            ...     model={"model": {"type": "linear"}, "training": {"epochs": 2}},
            ...     tracking={"root": tempfile.mkdtemp()},
            ... )
            >>> _ = trainer.train()
            >>> blocks = ([[5.1, 3.5, 1.4, 0.2]] * size for size in (2, 3))
            >>> [len(labels) for labels in trainer.predict_blocks(blocks)]
            [2, 3]
        """
        _check_flags(InputError, proba=proba, exact=exact)
        predictor = self._trained("predict_blocks")
        from gymtrain.trainer.streaming import answers, blocks_of

        if proba:
            predictor.require_probabilities()
        answer = predictor.predict_proba if proba else predictor.predict
        blocks = blocks_of(source, predictor.features, block_rows)
        return answers(blocks, partial(answer, exact=exact))

    def saliency(
        self,
        X: Any,
        target: Any = None,
        *,
        samples: int = 0,
        noise: float = 0.15,
        seed: int = 0,
        overlay: bool = False,
    ) -> npt.NDArray[Any]:
        """Return how much each pixel of images counts for what the model says of them.

        That is the size of the gradient of an output by the pixel, the largest of its channels
        (https://arxiv.org/abs/1312.6034), of each image in parts of its largest.

        Args:
            X: Images, as `predict` takes them.
            target: The label, or of a regression the output, that is asked about; None for the most probable label of
                each image.
            samples: The mean of the gradients of so many noisy copies is less noisy than that of the image
                (SmoothGrad, https://arxiv.org/abs/1706.03825); 50 are enough. 0 for the image itself.
            noise: The standard deviation of their noise, in parts of the range of the image's values.
            seed: Of the noise.
            overlay: Return pictures to look at instead: the images in grey, with red where the map is large.

        Returns:
            float32 of shape (rows, height, width) from 0 to 1, of the size that the model gets; with `overlay`, uint8
            of shape (rows, height, width, 3).

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            TaskError: The model is no torch module, or has no gradients.
            InputError: The rows are no images or do not fit the training data, there is no such target, or an argument
                has a value that it cannot have.

        Example:
            >>> import tempfile
            >>> trainer = Trainer(
            ...     dataset={"dataset": {"type": "digits", "images": True}},
            ...     model={"model": {"type": "cnn", "channels": [4]}, "training": {"epochs": 1}},
            ...     tracking={"root": tempfile.mkdtemp()},
            ... )
            >>> _ = trainer.train()
            >>> maps = trainer.saliency([[[float(row)] * 8 for row in range(8)]] * 2, samples=2)
            >>> maps.shape, float(maps.max())
            ((2, 8, 8), 1.0)
        """
        predictor = self._trained("saliency")
        _check_flags(InputError, overlay=overlay)
        from gymtrain.trainer.saliency import saliency

        return saliency(predictor, X, target, samples=samples, noise=noise, seed=seed, overlay=overlay)

    @property
    def classes_(self) -> npt.NDArray[Any]:
        """The labels, in the order of the columns of `predict_proba`.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            TaskError: It is a regression.
        """
        return self._described("classes_").task.classes

    @property
    def task(self) -> Task:
        """What is predicted.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
        """
        return self._described("task").task

    @property
    def features(self) -> Features:
        """What a row looks like.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
        """
        return self._described("features").features

    def estimate(self, repetitions: int = 500) -> dict[str, Any]:
        """Measure what a prediction costs on this machine.

        Args:
            repetitions: How often the prediction of one raw row is timed, after a warm-up.

        Returns:
            A dict that JSON can hold: `parameters` (`total`, `trainable`, `frozen`), `bytes` of parameters and buffers
            by type, `activation_bytes` (the most that one layer takes in and gives out for a row), all three null for
            models of other libraries; `latency_ms` of one row (`mean`, `std`, `p50`, `p95`, `p99`), everything from raw
            row to probabilities included; `rows_per_second` by the number of rows in a call; `device` and `threads`.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            InputError: `repetitions` is not a whole number of at least 1, or the bundle holds no rows to predict.
        """
        predictor = self._trained("estimate")
        from gymtrain.trainer.estimation import estimate

        return estimate(predictor, repetitions)

    def verify(self) -> dict[str, Any]:
        """Predict the few rows of the training data that the bundle holds again, and compare with what they gave there.

        Returns:
            A dict that JSON can hold: `verdict`, which is `"same bits"`, `"within tolerance"` or `"different"`; the
            number of `rows`; `largest_difference` between two scores, None where one is not finite; `tolerance`, the
            part of 1 for probabilities, and of the largest number of each output for a regression, by which scores may
            differ: half of the digits that the model's numbers have, 3.5e-4 for float32; and `changed_labels`, the
            number of rows of which the label is another, None for a regression.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            InputError: The trainer was trained here, and not loaded; or the bundle holds no rows.
            BundleError: The rows or the outputs do not fit the model.

        Example:
            >>> import os, tempfile
            >>> directory = tempfile.mkdtemp()
            >>> trainer = Trainer(
            ...     dataset={"dataset": {"type": "iris"}},
            ...     model={"model": {"type": "linear"}, "training": {"epochs": 1}},
            ...     tracking={"root": directory},
            ... )
            >>> result = trainer.train()
            >>> trainer.save(os.path.join(directory, "iris.zip"))
            >>> Trainer.load(os.path.join(directory, "iris.zip")).verify()["verdict"]
            'same bits'
        """
        predictor = self._trained("verify")
        from gymtrain.trainer.replay import replay

        return replay(predictor)

    def reproduce(
        self,
        data: Mapping[str, Any] = {},
        callbacks: Sequence[Callback] = (),
        *,
        keep: str | Path | None = None,
    ) -> dict[str, Any]:
        """Train again from the spec, and say whether the same comes of it, bit for bit.

        The data have to be those of then, which is seen by their SHA-256 before anything is learned. The training has a
        temporary directory for its root and no trackers; the trainer keeps what it has learned.

        Args:
            data: Arguments of the dataset that are to be used instead of those in the spec: the arrays or the frame of
                which a bundle holds no more than the fingerprint, `{"X": X, "y": y}`, or the `path` that a file has
                now.
            callbacks: Told of what happens. Those of then, where they change what is learned: no spec holds them.
            keep: Where the new bundle goes, a path or an address that can be written to; None for nowhere.

        Returns:
            A dict that JSON can hold: `same_bits`, whether weights and preprocessors are the same; `learned`, what of
            these differs, a list of dicts with `name`, `one`, `other`, the `largest` difference and the number of
            `differing` items; `metrics`, those that differ, with both values; `stop_reason`, then and now; `result`,
            what `train` returned now, but for `run`.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            SpecError: `data` has an argument that the dataset does not have.
            DataError: The data are not there, or are not those of then.
            TrainingError: The training was ended from outside, or it is a checkpoint.
            SaveError: `keep` is an address that cannot be written to.

        Example:
            >>> import tempfile
            >>> trainer = Trainer(
            ...     dataset={"dataset": {"type": "iris"}},
            ...     model={"model": {"type": "linear"}, "training": {"epochs": 2}},
            ...     tracking={"root": tempfile.mkdtemp()},
            ... )
            >>> result = trainer.train()
            >>> trainer.reproduce()["same_bits"]
            True
        """
        predictor = self._trained("reproduce")
        if keep is not None:
            _check_path(keep, lambda message: SaveError(f"keep: {message}"))
        from gymtrain.trainer.reproduction import reproduce

        return reproduce(self._experiment, predictor, self._learned or {}, data, callbacks, keep)

    def save(
        self,
        path: Writable,
        *,
        dtype: str | None = None,
        portable: bool = False,
        include_source: bool = False,
        sign_with: PrivateKey | None = None,
    ) -> None:
        """Write everything that prediction needs into one zip, whole or not at all.

        Args:
            path: The file; its directory has to exist, a file there is replaced. Or an address such as
                `s3://BUCKET/x.zip`, to which is uploaded what was written here; or a file object, open for writing
                bytes, which gets them at its position and is left open.
            dtype: For a smaller file, `"bf16"`, `"fp16"` or `"int8"` (with a scale for each output channel) instead of
                32 bits for each weight of a torch module. Who loads it has 32 bits again, but for what was rounded
                away; `gymtrain.inspect(path)["storage"]["reduced"]["change"]` says what that does to the metrics on the
                rows that were held out. This trainer keeps the weights that it has.
            portable: Put in the model as ONNX too, which is checked to answer as torch does, within
                `atol=1e-5, rtol=1e-4`: where the class of a torch module is neither registered nor trusted, the file
                then predicts through onnxruntime, and cannot be trained. Takes seconds, and the file becomes twice as
                large. Needs the extra `onnx`.
            include_source: Put in the source of the modules that define classes of yours, for people to read. It is
                never run: who loads the file needs the classes all the same.
            sign_with: An Ed25519 private key, so that those who load the file can see that it is yours: the path of a
                file in PEM or in the form of OpenSSH, its content as bytes, or a key of `cryptography`.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            SpecError: `sign_with` is no such key, or has a password.
            SaveError: A class of yours is defined where no other process finds it, or its source cannot be found; or
                `dtype` is none or cannot hold a weight; or the model is no torch module, or not the same in ONNX; or
                the address cannot be written to.
            MissingDependencyError: The package for such an address, for signatures or for ONNX is not installed.
            OSError: The path is a directory, or cannot be written; what was there is left as it was.
        """
        predictor = self._trained("save")
        _check_flags(SaveError, portable=portable, include_source=include_source)
        from gymtrain.bundle import signer
        from gymtrain.tracking.params import written
        from gymtrain.trainer.saving import save

        if not callable(getattr(path, "write", None)):
            _check_path(path, SaveError)
        save(
            path,
            self._experiment,
            written(self.to_dict()),
            predictor,
            self._learned or {},
            dtype=dtype,
            portable=portable,
            include_source=include_source,
            sign=None if sign_with is None else signer(sign_with),
        )

    def export_to_hub_folder(self, directory: str | Path) -> None:
        """Make a folder that a repository on the Hub of Hugging Face is made of, all of it or nothing.

        In it are the bundle as `model.zip`, its members under the names that the Hub looks for (`config.json`,
        `model.safetensors`, `preprocessors/`), and a `README.md` that begins with task, tags and results as the Hub
        reads them. `huggingface_hub.upload_folder` does the rest; nothing is sent from here.

        Args:
            directory: The folder, which is made or is empty; the directory that it lies in has to exist.

        Raises:
            NotTrainedError: Neither `train()` nor `load()` was called.
            SaveError: A class of yours is defined where no other process finds it.
            OSError: There is something in the folder, or it cannot be written.
        """
        self._trained("export_to_hub_folder")
        from gymtrain.trainer.hub import export_to_hub_folder

        _check_path(directory, SaveError)
        export_to_hub_folder(directory, self.save)

    @classmethod
    def load(
        cls,
        path: Readable,
        trust: Sequence[str] = (),
        *,
        types: Mapping[str, Callable[..., Any]] = {},
        sha256: str | None = None,
        signed_by: SignedBy | None = None,
        verify: Verify = "eager",
        tracking_uri: str | None = None,
    ) -> Trainer:
        """Read what `save` wrote, without running any code that the file brings.

        Args:
            path: The file; or an address from where it is downloaded, such as `https://HOST/x.zip`, `s3://BUCKET/x.zip`
                and `hf://ORG/NAME/x.zip`; or its place in MLflow: `runs:/RUN_ID` for the bundle that a run keeps,
                `runs:/RUN_ID/PATH` for another of its artifacts; `models:/MODEL_ID` for a logged model;
                `models:/NAME/VERSION`, `models:/NAME@ALIAS` and `models:/NAME/latest` for a registered one. Or the
                bytes of the file; or a file object, open for reading bytes and seekable, of which all is read and which
                is left open.
            trust: Types outside gymtrain that the file may name, as `"package.module:Class"`; they are imported. Types
                that are registered in this process need no trust.
            types: Your own classes by the names that the file has for them, `{"my_net": MyNet}`, where they are not
                registered, or lie elsewhere than when it was written.
            sha256: The SHA-256 that the whole file must have, in hexadecimal; None to take what is there. Give it where
                the file comes from elsewhere: then nobody on the way can have changed it.
            signed_by: Ed25519 public keys, one of which must have signed the file: the path of a file in PEM or in the
                form of OpenSSH, its content as bytes, a key of `cryptography`, or a list of these. The file is then
                read into memory as a whole. None to take it whoever signed it, or nobody.
            verify: When the weights are checked against their digest; everything else always is, at once. `"eager"`:
                before this returns. `"lazy"`: in a thread, and whatever needs the weights first waits for it, so that
                a file of any size opens in milliseconds and no answer comes from damaged weights; but a file object is
                always read to its end. False: not at all.
            tracking_uri: The store that a place in MLflow is in; None for the environment variable
                `MLFLOW_TRACKING_URI`, and without it `runs/mlflow.db` in the working directory.

        Raises:
            FileNotFoundError: There is no such file.
            SpecError: An argument has a value that it cannot have.
            BundleError: It is no bundle, was changed, is not signed by one of the keys, or names types that are neither
                registered, trusted nor given, all of which are listed; or it cannot be had from where it is said to be.
                With `verify="lazy"`, the methods that need the weights raise it where they are damaged.
            MissingDependencyError: The package for such an address, for signatures or for ONNX is not installed.

        Warns:
            UserWarning: Another great version of torch or numpy wrote it, or, where it holds fitted scikit-learn
                objects, any other release of scikit-learn than a patch.
        """
        from gymtrain.bundle import is_of_mlflow
        from gymtrain.tracking import fetched
        from gymtrain.trainer.own_classes import check_names
        from gymtrain.trainer.saving import load

        if not isinstance(path, bytes | bytearray | memoryview) and not callable(getattr(path, "read", None)):
            _check_path(path, partial(BundleError, reason="not_a_file"))
        trust = [trust] if isinstance(trust, str) else trust
        check_names(trust, types)
        if isinstance(path, str | os.PathLike) and is_of_mlflow(os.fspath(path)):
            with fetched(os.fspath(path), tracking_uri) as copy:
                return cls._of(*load(copy, trust, types, sha256=sha256, signed_by=signed_by, verify=verify))
        return cls._of(*load(path, trust, types, sha256=sha256, signed_by=signed_by, verify=verify))

    @classmethod
    def _of(
        cls,
        experiment: Experiment,
        predictor: Predictor | None = None,
        result: dict[str, Any] | None = None,
        verification: Verification | None = None,
    ) -> Trainer:
        trainer = cls.__new__(cls)
        trainer._experiment, trainer._predictor, trainer._verification = experiment, predictor, verification
        trainer.result = trainer._learned = result
        return trainer

    def _trained(self, what: str) -> Predictor:
        predictor = self._described(what)
        verification = self._verification  # another thread may set it to None
        if verification is not None:
            verification.wait()
            self._verification = None
        return predictor

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of, once the weights are verified: a thread cannot be copied.

        Raises:
            BundleError: The weights are damaged.
        """
        if self._verification is not None:
            self._verification.wait()
        return {**vars(self), "_verification": None}

    def _described(self, what: str) -> Predictor:
        """Return what was learned to somebody who does not look at the weights."""
        if self._predictor is None:
            raise NotTrainedError(
                f"{what}: this trainer has not learned anything yet; call train(), or Trainer.load(path)"
            )
        return self._predictor


def _check_flags(error: Callable[[str], GymtrainError], **flags: object) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise error(f"{name}: got {value!r}; expected True or False")


def _check_path(path: object, error: Callable[[str], GymtrainError]) -> None:
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path) or not os.fspath(path):
        raise error(f"got {path!r}; expected the path of a file, as a text or a pathlib.Path")
