"""Training on samples that are mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import user_code

from gymtrain import Callback, SpecError
from gymtrain.models.torch_model import TorchModel

IMAGES = np.random.default_rng(0).integers(0, 255, size=(48, 6, 6, 3), dtype=np.uint8)
TARGETS = {
    "binary": np.arange(48) % 2,
    "multiclass": np.array(list("abc"))[np.arange(48) % 3],
    "multilabel": np.stack([np.arange(48) % 2, np.arange(48) // 2 % 2], axis=1),
    "regression": np.linspace(-1, 1, 48),
}
MIX = [{"type": "flip"}, {"type": "mixup", "alpha": 1.0}, {"type": "cutmix", "probability": 0.5}]


class Looking(TorchModel):
    """Keeps the targets that it is given."""

    seen: list[torch.Tensor] = []

    def __init__(self, input_shape, output_size):
        super().__init__()
        self.linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(input_shape)), output_size))

    def forward(self, inputs):
        return self.linear(inputs)

    def training_step(self, batch):
        Looking.seen.append(batch.targets)
        return self.loss_of(self(batch.inputs), batch.targets)


def untrained(tiny, task, training=None, **fields):
    return tiny(
        {"type": "arrays", "X": IMAGES, "y": TARGETS[task], "task": task},
        {"type": Looking},
        {"epochs": 2, "batch_size": 8, **(training or {})},
        samples={"train": 0.75, "val": 0.25},
        preprocessors=[{"type": "divide", "factor": 255.0}],
        data_augmentors=MIX,
        **fields,
    )


def trained(tiny, task, training=None, **fields):
    Looking.seen.clear()
    trainer = untrained(tiny, task, training, **fields)
    return trainer, trainer.train()


@pytest.mark.parametrize(
    ("task", "one_hot"), [*((task, False) for task in TARGETS), ("binary", True), ("multiclass", True)]
)
def test_every_task_learns_from_mixed_samples(tiny, task, one_hot):
    _, result = trained(tiny, task, one_hot=one_hot)
    targets = torch.cat([each for each in Looking.seen if len(each) == 8])
    assert targets.dtype == torch.float32
    if task != "regression":
        assert targets.min() >= 0
        assert targets.max() <= 1
        assert ((targets > 0.01) & (targets < 0.99)).float().mean() > 0.2
    if task == "multiclass" or one_hot:
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(len(targets)))
    assert np.isfinite(result["metrics"]["train/loss"]).all()
    assert np.isfinite(result["metrics"]["val/loss"]).all()


def test_rows_and_classes_may_be_weighed_too(tiny):
    for task in ("binary", "multiclass"):
        _, result = trained(tiny, task, {"class_weight": "balanced"})
        assert np.isfinite(result["metrics"]["train/loss"]).all()


def test_a_loss_that_takes_classes_alone_is_refused_before_training(tiny):
    with pytest.raises(SpecError, match=r"model\.training\.loss: NLLLoss needs one class for each row"):
        trained(tiny, "multiclass", {"loss": "NLLLoss"})
    with pytest.raises(SpecError, match=r"model\.training\.loss: the loss .* set dataset.one_hot: true if it takes"):
        trained(tiny, "multiclass", {"loss": {"type": user_code.user_loss}})


class Interrupt(Callback):
    """Ends a training as Ctrl-C does, in the middle of an epoch."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, state):
        if state.step == self.step:
            raise KeyboardInterrupt


def test_mixed_batches_have_the_same_bits_for_any_number_of_workers(tiny):
    losses = {
        workers: trained(tiny, "multiclass", {"workers": workers})[1]["metrics"]["train/loss"] for workers in (0, 1, 2)
    }
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("step", [3, 7])
def test_mixed_batches_have_the_same_bits_after_a_resume(tiny, step):
    _, result = trained(tiny, "multiclass")
    rest = Looking.seen[-(10 - step) :]
    interrupted = untrained(tiny, "multiclass", {"checkpoint": {}})
    with pytest.raises(KeyboardInterrupt):
        interrupted.train([Interrupt(step)])
    Looking.seen.clear()
    resumed = untrained(tiny, "multiclass", {"checkpoint": {}})
    again = resumed.train(resume=Path(interrupted.result["run"]["checkpoint_dir"]))
    assert all(torch.equal(one, other) for one, other in zip(Looking.seen[-(10 - step) :], rest, strict=True))
    assert again["metrics"]["train/loss"] == result["metrics"]["train/loss"]
