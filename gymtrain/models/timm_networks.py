"""Networks of timm (https://huggingface.co/docs/timm), by their names there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gymtrain.errors import Fault, MissingDependencyError, SpecError, did_you_mean
from gymtrain.models.networks.arguments import image_size

if TYPE_CHECKING:
    from torch import nn

# What says where weights are, or what follows from the data. timm unpickles some of these files, and a spec may come
# out of a bundle of anybody's making.
_WEIGHTS = ("weights", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
_OF_THE_DATA = ("num_classes", "in_chans")


def timm_network(
    *,
    input_shape: tuple[int, ...],
    output_size: int,
    name: str,
    pretrained: bool = False,
    **arguments: Any,
) -> nn.Module:
    """A network of timm, for images of shape (height, width) or (height, width, channels).

    Its tensors are named as timm has them; weights of a file are given as `model.training.start_from`.

    Args:
        input_shape: The shape of an image.
        output_size: The number of outputs.
        name: As `timm.list_models()` has it, such as `"resnet18"` or `"convnext_tiny.fb_in1k"`.
        pretrained: Whether timm downloads the weights that it has for this name when a training begins; what was
            learned of them lies in the bundle.
        arguments: Arguments of `timm.create_model`, such as `drop_rate` or `img_size`.

    Raises:
        MissingDependencyError: timm is not installed, or cannot be imported.
        SpecError: timm has no such network, or an argument is not the spec's to give.
        DataError: The rows are no images.
    """
    faults = [
        Fault(f"model.model.{key}", "weights of a file are given as model.training.start_from; leave it out")
        for key in _WEIGHTS
        if key in arguments
    ]
    faults += [
        Fault(f"model.model.{key}", "follows from the data; leave it out") for key in _OF_THE_DATA if key in arguments
    ]
    if not re.fullmatch(r"[\w.]+", name):
        faults.append(Fault("model.model.name", f"got {name!r}; expected the name of a network, no place of one"))
    if faults:
        raise SpecError(faults)
    _, _, channels = image_size("timm", input_shape)
    timm = _timm()
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        known = timm.list_models()
        hint = did_you_mean(architecture, known) or f"; timm {timm.__version__} has {len(known)}, timm.list_models()"
        raise SpecError([Fault("model.model.name", f"timm has no network {name!r}{hint}")])
    network: nn.Module = timm.create_model(
        name, pretrained=pretrained, num_classes=output_size, in_chans=channels, **arguments
    )

    from gymtrain.models.networks.layers import ChannelsFirst

    channels_first = ChannelsFirst(len(input_shape))
    # Not around the network, whose tensors would have other names than everywhere else.
    network.register_forward_pre_hook(lambda _, inputs: (channels_first(inputs[0]), *inputs[1:]))
    return network


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"model.model: timm cannot be imported ({error}); pip install 'gymtrain[timm]'"
        ) from error
    except RuntimeError as error:
        raise MissingDependencyError(
            f"model.model: timm needs torchvision, which cannot be imported ({error}): it is of another build than "
            f"torch; install both from one index of https://pytorch.org/get-started/locally"
        ) from error
    return timm
