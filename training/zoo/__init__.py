"""The networks: one file per architecture; a family of sizes shares its file.

A file defines `build(...)`, which returns a Keras model with fresh random weights, and nothing
else: no data, no training, no augmentation. Of networks that read a sequence, `build_step(network)`
may give the form that reads one element at a time. Inputs and outputs carry the names that the
model is served under. The table in its docstring gives input, multiply-adds and parameters of each
size. Listing the names loads no framework; building does.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ridgeline.errors import NotFound

if TYPE_CHECKING:
    import keras

Entry = tuple[str, str, Mapping[str, Any]]  # the file, what builds it there, what that is told


def _application(architecture: str) -> Entry:
    return "applications", "build", {"architecture": architecture}


_CIFAR: dict[str, Any] = {"size": 32, "classes": 10}
_RESNET: dict[str, Any] = {"widths": (64, 128, 256, 512), "stem": (7, 2), "pooled": True}
_RESNET_CIFAR: dict[str, Any] = {"widths": (16, 32, 64), "stem": (3, 1), **_CIFAR}
_NETWORKS: Mapping[str, Entry] = {
    "alexnet": ("alexnet", "build", {}),
    "alexnet_cifar": ("alexnet", "build", {"small": True, "classes": 10}),
    "deepspeech": (
        "deepspeech",
        "build",
        {"steps": 300, "bands": 161, "maps": 32, "units": 800, "recurrent": 7, "vocabulary": 28},
    ),
    "deepspeech_small": (
        "deepspeech",
        "build",
        {"steps": 160, "bands": 40, "maps": 8, "units": 48, "recurrent": 2, "vocabulary": 10},
    ),
    "detector": ("detector", "build", {}),
    "efficientnet_lite0": ("efficientnet_lite0", "build", {}),
    "gnmt": (
        "translator",
        "build",
        {
            "source_steps": 50,
            "target_steps": 50,
            "source_words": 32_000,
            "target_words": 32_000,
            "units": 1024,
            "depth": 8,
        },
    ),
    "googlenet": ("googlenet", "build", {}),
    "googlenet_cifar": (
        "googlenet",
        "build_small",
        {
            "stages": (
                ((32, 32, 48, 8, 16, 16), (48, 32, 64, 8, 24, 16)),
                ((64, 48, 96, 16, 32, 32), (64, 48, 96, 16, 32, 32)),
                ((96, 64, 128, 16, 48, 48),),
            ),
            "stem": 32,
        },
    ),
    "gru_language": ("recurrent_language", "build", {"cell": "gru"}),
    "inception_small": (
        "googlenet",
        "build_small",
        {
            "stages": (((8, 8, 16, 4, 8, 8),), ((16, 16, 32, 4, 16, 16),)),
            "stem": 16,
            "stride": 2,
            "channels": 1,
        },
    ),
    "lenet5": ("lenet5", "build", {}),
    "localizer": ("localizer", "build", {}),
    "lstm_language": ("recurrent_language", "build", {"cell": "lstm"}),
    "mlp": ("mlp", "build", {}),
    "mobilenet_v2": _application("MobileNetV2"),
    "perceptron": ("perceptron", "build", {}),
    "resnet18": ("resnet", "build", {"blocks": (2, 2, 2, 2), **_RESNET}),
    "resnet20": ("resnet", "build", {"blocks": (3, 3, 3), **_RESNET_CIFAR}),
    "resnet50": ("resnet", "build", {"blocks": (3, 4, 6, 3), "bottleneck": True, **_RESNET}),
    "resnet56": ("resnet", "build", {"blocks": (9, 9, 9), **_RESNET_CIFAR}),
    "resnet_small": (
        "resnet",
        "build",
        {"blocks": (1, 1, 1), "widths": (24, 48, 96), "stem": (5, 2), "channels": 1, **_CIFAR},
    ),
    "transformer_language": ("transformer_language", "build", {}),
    "translator_small": (
        "translator",
        "build",
        {
            "source_steps": 12,
            "target_steps": 7,
            "source_words": 32,
            "target_words": 11,
            "units": 64,
            "depth": 2,
        },
    ),
    "unet": ("unet", "build", {}),
    "vertical_edges": ("vertical_edges", "build", {}),
    "vgg11": ("vgg", "build", {"blocks": (1, 1, 2, 2, 2)}),
    "vgg16": ("vgg", "build", {"blocks": (2, 2, 3, 3, 3)}),
    "vgg_cifar": (
        "vgg",
        "build",
        {
            "blocks": (2, 2, 2),
            "widths": (32, 64, 128),
            "dense": (256,),
            "normalised": True,
            **_CIFAR,
        },
    ),
    "vgg_small": (
        "vgg",
        "build",
        {
            "blocks": (2, 2, 2),
            "widths": (16, 32, 64),
            "dense": (128,),
            "channels": 1,
            "normalised": True,
            **_CIFAR,
        },
    ),
}
_KERAS = "keras."  # keras.<Name>: a network of keras.applications


def names() -> tuple[str, ...]:
    """The names of all networks, sorted."""
    return tuple(sorted(_NETWORKS))


def knows(name: str) -> bool:
    """Whether `build` may know that name; those of keras.applications are only known to Keras."""
    return name in _NETWORKS or name.startswith(_KERAS)


def file_of(name: str) -> str:
    """The file, in this folder, that describes and builds the network of `names()`."""
    return _NETWORKS[name][0]


def is_application(name: str) -> bool:
    """Whether the network is one of keras.applications, which come with weights."""
    return name.startswith(_KERAS) or _NETWORKS.get(name, ("",))[0] == "applications"


def build(name: str, *, classes: int | None = None, **given: Any) -> "keras.Model":
    """A fresh network of that name; `given` goes to what builds it.

    It tells so many `classes` apart where it is a classifier, else, and by default, as many as its
    file says. Raises NotFound listing the names there are.
    """
    if name.startswith(_KERAS):
        entry = _application(name.removeprefix(_KERAS))
    elif name in _NETWORKS:
        entry = _NETWORKS[name]
    else:
        raise NotFound(
            f"there is no network {name!r}; there are {', '.join(names())}, "
            "and keras.<Name> for each of keras.applications"
        )
    file, builder, arguments = entry
    module = importlib.import_module(f"{__name__}.{file}")
    construct = getattr(module, builder)
    if classes is not None and "classes" in inspect.signature(construct).parameters:
        given["classes"] = classes
    model: keras.Model = construct(**{**arguments, **given})
    model.name = name.replace(".", "_")
    return model


def build_step(name: str, *, network: "keras.Model") -> "keras.Model | None":
    """The network of that name, with its weights, for one element of a sequence at a time.

    An input `<state>` of it is what the output `next_<state>` was at the element before, `start`
    tells that there was none. None where the network's file knows no such form.
    """
    if name not in _NETWORKS:
        return None
    module = importlib.import_module(f"{__name__}.{file_of(name)}")
    build_it = getattr(module, "build_step", None)
    return build_it(network) if build_it else None
