"""A classifier that takes image files: a model that unpacks them, and an ensemble of the two.

    image_file --preprocess--> tensor --classifier--> its outputs, with labels

Both are written into the repository of the classifier, whose configuration tells the shapes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc import model_config_pb2

from ridgeline.errors import AlreadyThere, InvalidInput, NotFound
from ridgeline.model import FREE, ModelSpec, TensorSpec, config_of, spec_of
from ridgeline.repository import (
    ModelCard,
    RepositoryModel,
    look_up,
    publish,
    read_card,
    read_labels,
)
from serving.ensemble import plan_of
from serving.loading import load_version, versions_to_serve
from serving.settings import ServeSettings

INPUT = "image_file"
_SOURCE = Path(__file__).parent / "python-models" / "preprocess_image.py"
_FILE = "model.py"
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a tensor; `serving/python-models/preprocess_image.py` tells the words.

    `mean` and `std` are in levels from 0 to 255: one number, or one a channel.
    """

    resize: str = "pad"
    crop_share: float = 1.0
    filter: str = "bilinear"
    invert: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    max_file_bytes: int = 16 << 20
    max_pixels: int = 25_000_000

    def __post_init__(self) -> None:
        if self.resize not in ("pad", "crop", "stretch"):
            raise InvalidInput(f"resize must be pad, crop or stretch, received {self.resize!r}")
        if self.filter not in ("bilinear", "bicubic"):
            raise InvalidInput(f"filter must be bilinear or bicubic, received {self.filter!r}")
        if not 0 < self.crop_share <= 1:
            raise InvalidInput(f"crop_share must be above 0, at most 1, received {self.crop_share}")
        if 0.0 in self.std:
            raise InvalidInput("std must not be 0")
        for name in ("max_file_bytes", "max_pixels"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be at least 1, received {getattr(self, name)}")


@dataclass(frozen=True)
class ImageShape:
    """The sizes of an image, and whether its channels stand first (NCHW) or last (NHWC)."""

    height: int
    width: int
    channels: int
    layout: str


@dataclass(frozen=True)
class Classifier:
    """A published model that takes one image tensor, with the class names of its outputs.

    `trained_with` is how files of images became tensors when it was trained, where that is known.
    """

    spec: ModelSpec
    shape: ImageShape
    labels: Mapping[str, tuple[str, ...]]
    trained_with: Preprocessing = Preprocessing()

    @property
    def input(self) -> TensorSpec:
        """The image."""
        return self.spec.inputs[0]


@dataclass(frozen=True)
class Published:
    """The folders of the two versions that were written."""

    preprocess: Path
    ensemble: Path


def image_shape(tensor: TensorSpec, *, batches: bool) -> ImageShape:
    """What image a tensor holds. Raises InvalidInput where its shape does not tell.

    Without a batch axis of the server's, a first axis of one row is left out.
    """
    sizes = tensor.shape
    if not batches and len(sizes) == 4 and sizes[0] in (1, FREE):
        sizes = sizes[1:]
    if tensor.datatype == "FP32" and FREE not in sizes and 0 not in sizes:
        if len(sizes) == 2:
            return ImageShape(*sizes, channels=1, layout="NHWC")
        if len(sizes) == 3 and sizes[2] in _CHANNELS:
            return ImageShape(*sizes, layout="NHWC")
        if len(sizes) == 3 and sizes[0] in _CHANNELS:
            return ImageShape(sizes[1], sizes[2], channels=sizes[0], layout="NCHW")
    raise InvalidInput(
        f"the input {tensor.name!r} must be an image: FP32, height x width, height x width x "
        "channels or channels x height x width, all known, 1 or 3 channels; "
        f"it is {tensor.datatype} {list(tensor.shape)}"
    )


def read_classifier(
    name: str, *, root: Path, labels: Sequence[str] | None, settings: ServeSettings
) -> Classifier:
    """The model `name` of a repository; `labels` stand in for those published with it.

    A model that leaves its contract to the graph is loaded as the gateway would do it. Raises
    NotFound, InvalidInput where it takes no image.
    """
    model = look_up(root, name=name)
    config = _complete_config(model, settings=settings)
    spec = spec_of(config)
    if len(spec.inputs) != 1:
        names = [tensor.name for tensor in spec.inputs]
        raise InvalidInput(f"{name!r} must have one input, an image; it has {names}")
    by_output = read_labels(model.directory, config)
    if labels is not None:
        by_output = {_labelled_output(spec, count=len(labels)): tuple(labels)}
    shape = image_shape(spec.inputs[0], batches=spec.batches)
    return Classifier(spec, shape, labels=by_output, trained_with=_trained_with(model))


def write_pipeline(
    name: str, *, classifier: Classifier, preprocessing: Preprocessing, root: Path
) -> Published:
    """Publish `<name>_preprocess` and then, when that is there, the ensemble `name`.

    Each appears whole or not at all; a server that watches the repository serves them at once. An
    earlier pipeline of the same name gets a new version. Raises AlreadyThere where the name belongs
    to a model of another kind, InvalidInput where its contract was another one.
    """
    preprocess = _preprocess_config(f"{name}_preprocess", classifier, preprocessing)
    ensemble = _ensemble_config(name, classifier, preprocess=preprocess.name)
    plan_of(ensemble, spec=spec_of(ensemble))  # names that collide are refused before writing
    for config in (preprocess, ensemble):
        _refuse_other_kind(config, root=root)
    card = ModelCard()
    files = {_FILE: _SOURCE.read_bytes()}
    return Published(
        preprocess=publish(files, config=preprocess, card=card, labels={}, root=root),
        ensemble=publish({}, config=ensemble, card=card, labels=classifier.labels, root=root),
    )


def _complete_config(
    model: RepositoryModel, *, settings: ServeSettings
) -> model_config_pb2.ModelConfig:
    config = model.read_config()
    if config is not None and config.input and config.output:
        return config
    if config is not None and config.backend not in ("", "onnxruntime"):
        raise InvalidInput(f"the config.pbtxt of {model.name!r} must name inputs and outputs")
    version = versions_to_serve(model)[-1]
    loaded = load_version(model, version=version, settings=settings, on_engine=lambda _: None)
    return loaded.config


def _trained_with(model: RepositoryModel) -> Preprocessing:
    """What the newest version's card says of its training; the usual where it says nothing."""
    card = read_card(model.version_directory(model.versions[-1])) if model.versions else None
    told = card.training.get("preprocessing") if card else None
    if told is None:
        return Preprocessing()
    try:
        return Preprocessing(
            resize=told["resize"],
            crop_share=float(told["crop_share"]),
            filter=told["filter"],
            mean=(float(told["mean"]),),
            std=(float(told["std"]),),
        )
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidInput(
            f"the model card of {model.name!r} tells no preprocessing: {told!r}"
        ) from error


def _labelled_output(spec: ModelSpec, *, count: int) -> str:
    """The output that has as many values a row as there are labels."""
    outputs = [
        tensor.name for tensor in spec.outputs if tensor.shape and tensor.shape[-1] in (FREE, count)
    ]
    if len(outputs) == 1:
        return outputs[0]
    sizes = {tensor.name: list(tensor.shape) for tensor in spec.outputs}
    raise InvalidInput(
        f"{count} labels must fit one output of {spec.name!r}; its outputs are {sizes}"
    )


def _preprocess_config(
    name: str, classifier: Classifier, preprocessing: Preprocessing
) -> model_config_pb2.ModelConfig:
    spec, shape = classifier.spec, classifier.shape
    channels = {len(preprocessing.mean), len(preprocessing.std)} - {1}
    if channels - {shape.channels}:
        raise InvalidInput(
            f"mean and std must be one number or {shape.channels}, one a channel, "
            f"received {list(preprocessing.mean)} and {list(preprocessing.std)}"
        )
    row = tuple(1 if size == FREE else size for size in classifier.input.shape)
    contract = ModelSpec(
        name,
        spec.max_batch_size,
        (TensorSpec("file", "BYTES", (1,)),),
        (TensorSpec("image", "FP32", row),),
    )
    config = config_of(contract, backend="python", file=_FILE)
    parameters = {
        "height": str(shape.height),
        "width": str(shape.width),
        "channels": str(shape.channels),
        "layout": shape.layout,
        "resize": preprocessing.resize,
        "crop_share": repr(preprocessing.crop_share),
        "filter": preprocessing.filter,
        "invert": str(preprocessing.invert).lower(),
        "mean": ",".join(map(repr, preprocessing.mean)),
        "std": ",".join(map(repr, preprocessing.std)),
        "max_file_bytes": str(preprocessing.max_file_bytes),
        "max_pixels": str(preprocessing.max_pixels),
    }
    for key, value in parameters.items():
        config.parameters[key].string_value = value
    return config


def _ensemble_config(
    name: str, classifier: Classifier, *, preprocess: str
) -> model_config_pb2.ModelConfig:
    spec = classifier.spec
    contract = ModelSpec(
        name, spec.max_batch_size, (TensorSpec(INPUT, "BYTES", (1,)),), spec.outputs
    )
    config = config_of(contract, backend="", file="")
    config.platform = "ensemble"
    config.ClearField("dynamic_batching")
    tensor = "preprocessed_image"
    step = model_config_pb2.ModelEnsembling.Step
    config.ensemble_scheduling.step.extend(
        [
            step(
                model_name=preprocess,
                model_version=-1,
                input_map={"file": INPUT},
                output_map={"image": tensor},
            ),
            step(
                model_name=spec.name,
                model_version=-1,
                input_map={classifier.input.name: tensor},
                output_map={output.name: output.name for output in spec.outputs},
            ),
        ]
    )
    return config


def _refuse_other_kind(config: model_config_pb2.ModelConfig, *, root: Path) -> None:
    try:
        model = look_up(root, name=config.name)
    except NotFound:
        return
    earlier = model.read_config() or model_config_pb2.ModelConfig()
    if (earlier.platform, earlier.backend) != (config.platform, config.backend):
        raise AlreadyThere(f"{model.directory} holds a model of another kind; take another name")
