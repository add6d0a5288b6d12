from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from little_shapes import shapes
from torch import nn

from gymtrain import DataError, Model, SpecError, Trainer
from gymtrain.models.networks.convolutional import cnn, dogs_vs_cats_cnn
from gymtrain.models.networks.layer_list import LAYERS
from gymtrain.models.networks.residual import resnet

LAYER_LIST: list[dict[str, Any]] = [
    {"type": "conv", "filters": 8, "stride": 2, "batch_norm": True},
    {"type": "conv", "filters": 16, "kernel_size": 1, "stride": 2, "activation": "silu"},
    {"type": "max_pool", "size": 2, "stride": 1},
    {"type": "dropout", "probability": 0.1},
    {"type": "avg_pool", "size": 1},
    {"type": "dense", "units": 12, "batch_norm": True, "activation": None},
]
NETWORKS: dict[str, dict[str, Any]] = {
    "cnn of layers": {"type": "cnn", "layers": LAYER_LIST},
    "dogs_vs_cats_cnn": {"type": "dogs_vs_cats_cnn", "input_shape": [12, 12, 3]},
    "resnet": {"type": "resnet", "blocks": [1, 1], "width": 8},
    "resnet for large images": {"type": "resnet", "blocks": [1, 2], "width": 4, "stem": "imagenet", "dropout": 0.1},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def trainer_of(
    root: Path, model: Any, training: dict[str, Any], rows: int = 240, kinds: tuple[str, ...] = ("circle", "stripes")
) -> Trainer:
    X, y = shapes(rows, 12, kinds)
    return Trainer(
        dataset={"dataset": {"type": "arrays", "X": X, "y": y}, "samples": {"train": 0.8, "test": 0.2}},
        model={"model": model, "training": training},
        tracking={"root": str(root), "trackers": [], "log_figures": False},
    )


@pytest.mark.parametrize(
    ("model", "training"),
    [
        ("dogs_vs_cats_cnn", {"epochs": 8, "optimizer": {"type": "Adam", "lr": 0.003}}),
        ({"type": "resnet", "blocks": [1, 1], "width": 8}, {"epochs": 4, "optimizer": {"type": "Adam", "lr": 0.01}}),
        ({"type": "cnn", "layers": LAYER_LIST}, {"epochs": 6, "optimizer": {"type": "Adam", "lr": 0.01}}),
    ],
    ids=["dogs_vs_cats_cnn", "resnet", "cnn of layers"],
)
def test_networks_learn_drawn_shapes(tmp_path, model, training):
    trainer = trainer_of(tmp_path, model, {**training, "batch_size": 16})

    result = trainer.train()

    assert result["metrics"]["test/accuracy"] > 0.85


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_predicts_the_same_bits_out_of_a_bundle_in_any_batch_and_in_training_nothing(tmp_path, name):
    trainer = trainer_of(tmp_path, NETWORKS[name], {"epochs": 1}, rows=64, kinds=("circle", "cross", "square"))
    trainer.train()
    trainer.save(tmp_path / "model.zip")
    loaded = Trainer.load(tmp_path / "model.zip")
    X, _ = shapes(300, 12, seed=1)
    order = np.random.default_rng(0).permutation(len(X))
    before = {key: tensor.clone() for key, tensor in trainer._predictor.learner.module.state_dict().items()}

    expected = trainer.predict_proba(X)

    assert loaded.predict_proba(X).tobytes() == expected.tobytes()
    assert trainer.predict_proba(X[order]).tobytes() == expected[order].tobytes()
    for size in (1, 3, 17):
        few = [trainer.predict_proba(X[start : start + size]) for start in range(0, 6 * size, size)]
        assert np.concatenate(few).tobytes() == expected[: 6 * size].tobytes(), size
    assert loaded.to_dict()["model"] == trainer.to_dict()["model"]
    for key, tensor in trainer._predictor.learner.module.state_dict().items():
        assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("precision", ["bf16", "16", "bf16-true"])
def test_networks_learn_in_half_precision(tmp_path, name, precision):
    trainer = trainer_of(tmp_path, NETWORKS[name], {"max_steps": 2, "precision": precision}, rows=64)

    result = trainer.train()

    assert np.isfinite(result["metrics"]["train/loss"]).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch, by torch
def test_a_compiled_network_learns_what_the_network_learns(tmp_path):
    losses = []
    for compiled in (False, True):
        trainer = trainer_of(tmp_path, NETWORKS["resnet"], {"max_steps": 3, "compile": compiled}, rows=120)
        losses.append(trainer.train()["metrics"]["train/loss"])

    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn of layers", "dogs_vs_cats_cnn", "resnet for large images"])
def test_networks_are_exported_to_onnx(tmp_path, name):
    trainer = trainer_of(tmp_path, NETWORKS[name], {"epochs": 1}, rows=64)
    trainer.train()

    trainer.save(tmp_path / "model.zip", portable=True)  # compares the two

    X, _ = shapes(40, 12, seed=1)
    assert Trainer.load(tmp_path / "model.zip").predict_proba(X).tobytes() == trainer.predict_proba(X).tobytes()


@pytest.mark.parametrize("shape", [(12, 14), (12, 14, 1), (12, 14, 3)], ids=str)
@pytest.mark.parametrize("make", [cnn, dogs_vs_cats_cnn, resnet])
def test_a_network_takes_images_with_and_without_channels_in_the_format_of_channels_last(make, shape):
    network = make(input_shape=shape, output_size=2).eval()
    seen: list[torch.Tensor] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(lambda layer, arguments: seen.append(arguments[0]))

    assert network(torch.zeros(3, *shape)).shape == (3, 2)
    assert seen
    if shape[2:] == (3,):  # a single channel lies in memory in one way alone
        assert all(images.is_contiguous(memory_format=torch.channels_last) for images in seen)


def test_simple_arguments_are_short_for_layers():
    facts = {"input_shape": (16, 16, 3), "output_size": 2}
    layers = [
        {"type": "conv", "filters": 4, "kernel_size": 5, "activation": "tanh"},
        {"type": "max_pool"},
        {"type": "dense", "units": 6, "activation": "tanh"},
        {"type": "dropout", "probability": 0.25},
    ]

    simple = cnn(**facts, channels=[4], kernel_size=5, hidden=[6], dropout=0.25, activation="tanh")

    assert repr(cnn(**facts, layers=layers)) == repr(simple)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "elu", "leaky_relu"])
def test_a_pool_gives_the_same_before_a_rising_activation_as_behind_it(activation):
    layers = [{"type": "conv", "filters": 4, "activation": activation}, {"type": "max_pool"}]
    network = cnn(input_shape=(6, 6, 3), output_size=2, layers=layers)
    kinds = [name for name, _ in network.features.named_children()]
    images = torch.randn(5, 6, 6, 3)

    result = network.features(network.channels_first(images))

    assert (kinds[1] == "max_pool1") == (activation not in ("gelu", "silu"))
    named = dict(network.features.named_children())
    by_hand = named["max_pool1"](named[f"conv1_{activation}"](named["conv1"](images.permute(0, 3, 1, 2))))
    torch.testing.assert_close(result, by_hand)  # of elu, what fills no register of the processor has other last bits


def test_the_network_for_dogs_and_cats_has_the_layers_of_gymnos():
    network = dogs_vs_cats_cnn(input_shape=(100, 100, 3), output_size=2)
    layers = [layer for layer in network.modules() if next(layer.children(), None) is None]

    assert [type(layer).__name__ for layer in layers[1:]] == [
        "BatchNorm2d",
        *("Conv2d", "MaxPool2d", "ReLU", "Dropout") * 2,
        *("Flatten", "Linear", "ReLU", "Dropout", "Linear"),
    ]
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.7, 0.7, 0.5]
    assert [tuple(each.shape) for each in network.parameters()][2::2] == [
        *((32, 3, 3, 3), (64, 32, 3, 3)),
        *((256, 64 * 23 * 23), (2, 256)),
    ]


@pytest.mark.parametrize(
    ("blocks", "millions"), [([2, 2, 2, 2], 11_689_512), ([3, 4, 6, 3], 21_797_672)], ids=["ResNet-18", "ResNet-34"]
)
def test_residual_networks_have_the_weights_of_those_of_the_paper(blocks, millions):
    with torch.device("meta"):
        network = resnet(input_shape=(224, 224, 3), output_size=1000, blocks=blocks, width=64)

    assert sum(parameter.numel() for parameter in network.parameters()) == millions


@pytest.mark.parametrize(("size", "convolution"), [(32, (3, 3)), (63, (3, 3)), (64, (7, 7)), (224, (7, 7))])
def test_the_stem_fits_the_images(size, convolution):
    network = resnet(input_shape=(size, size, 3), output_size=2, blocks=[1], width=4)

    assert network.stem.conv.kernel_size == convolution


def test_a_block_adds_what_it_learned_to_its_shortcut():
    network = resnet(input_shape=(8, 8), output_size=2, blocks=[1], width=4).eval()
    (block,) = network.stage1
    nn.init.zeros_(block.norm2.weight)
    images = torch.randn(2, 4, 8, 8)

    assert torch.equal(block(images), images.relu())


def test_defaults_of_layers_are_written_out():
    spec = Model(model={"type": "cnn", "layers": ["max_pool", {"type": "dense", "units": 3}]})

    assert spec.to_dict()["model"]["layers"] == [
        {"type": "max_pool", "size": 2, "stride": None},
        {"type": "dense", "units": 3, "batch_norm": False, "activation": "relu"},
    ]
    assert Model(**spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("layers", "path", "message"),
    [
        ("conv", "", r"^got 'conv'; expected a list of 1 to 200 layers, or null$"),
        ([], "", r"^got \[\]; expected a list of 1 to 200 layers"),
        ([3], "[0]", r"^got 3; expected a layer such as \{'type': 'conv', 'filters': 32\}$"),
        ([{"filters": 3}], "[0]", r"expected a layer such as"),
        (
            ["max_pool", {"type": "convolution"}],
            "[1].type",
            r"^got 'convolution'.*; known: avg_pool, conv, dense, drop",
        ),
        ([{"type": "dens", "units": 3}], "[0].type", r"^got 'dens'; did you mean 'dense'\?"),
        ([{"type": "conv"}], "[0].filters", r"^missing; expected an integer from 1 to 1000000$"),
        ([{"type": "conv", "filters": 0}], "[0].filters", r"^got 0; expected an integer from 1 to 1000000$"),
        ([{"type": "conv", "filters": 4, "kernel": 3}], "[0].kernel", r"^unknown key; .*kernel_size"),
        (
            [{"type": "conv", "filters": 4, "padding": "full"}],
            "[0].padding",
            r"^got 'full'; expected 'same' or 'valid'$",
        ),
        (
            [{"type": "conv", "filters": 4, "kernel_size": 4, "stride": 2}],
            "[0]",
            r"^got 4; with a stride .* odd number$",
        ),
        (
            [{"type": "dense", "units": 4, "activation": "softmax"}],
            "[0].activation",
            r"^got 'softmax'; expected 'relu'",
        ),
        (
            [{"type": "dropout", "probability": 1.0}],
            "[0].probability",
            r"^got 1.0; expected a number of at least 0 and",
        ),
        ([{"type": "global_avg_pool", "size": 2}], "[0].size", r"^unknown key; it takes no arguments$"),
        (
            [{"type": "dense", "units": 4}, "max_pool"],
            "[1].type",
            r"^max_pool takes images, and a dense layer before it",
        ),
    ],
)
def test_a_wrong_layer_is_told_where_it_stands(layers, path, message):
    with pytest.raises(SpecError) as caught:
        Model(model={"type": "cnn", "layers": layers})

    (found,) = caught.value.faults
    assert found.path == f"model.model.layers{path}"
    assert re.search(message, found.message), found.message


def test_layers_beside_what_they_replace_are_refused():
    with pytest.raises(SpecError, match=r"model\.model\.layers: stands beside channels, dropout, which say otherwise"):
        Model(model={"type": "cnn", "layers": ["max_pool"], "channels": [4], "dropout": 0.5, "hidden": [64]})


@pytest.mark.parametrize(
    ("make", "shape", "arguments", "message"),
    [
        (cnn, (4,), {}, r"cnn takes images of shape \(height, width\).* got rows of shape \(4,\)$"),
        (dogs_vs_cats_cnn, (4,), {}, r"dogs_vs_cats_cnn takes images of shape"),
        (resnet, (2, 2, 2, 2), {}, r"resnet takes images of shape .* got rows of shape \(2, 2, 2, 2\)$"),
        (cnn, (3, 8), {}, r"2 convolutions halve an image 2 times; got images of 3 x 8 pixels"),
        (
            dogs_vs_cats_cnn,
            (9, 20, 3),
            {},
            r"model\.model \(dogs_vs_cats_cnn\): layer 5 of 8: max_pool needs images of at least 2 x 2 pixels, and "
            r"those that reach it have 1 x 7; give larger images",
        ),
        (cnn, (6, 6), {"layers": [{"type": "conv", "filters": 2, "kernel_size": 7, "padding": "valid"}]}, r"7 x 7 pix"),
    ],
)
def test_images_that_do_not_fit_a_network_are_refused(make, shape, arguments, message):
    with pytest.raises(DataError, match=message):
        make(input_shape=shape, output_size=2, **arguments)


@pytest.mark.parametrize("size", [28, 29, 30, 31])
def test_the_sizes_that_a_list_of_layers_counts_with_are_those_of_torch(size):
    for kernel in (1, 2, 3, 5):
        for stride in (1, 2, 3):
            layers = [
                {"type": "conv", "filters": 2, "kernel_size": kernel, "padding": "valid", "stride": stride},
                {"type": "conv", "filters": 2, "kernel_size": 3, "stride": stride},
                {"type": "max_pool", "size": 2, "stride": 1},
                {"type": "avg_pool", "size": 1, "stride": 2},
            ]
            assert cnn(input_shape=(size, 28), output_size=2, layers=layers)(torch.zeros(1, size, 28)).shape == (1, 2)


def test_every_layer_says_what_it_is():
    assert all(layer.__doc__ for layer in LAYERS.values())
