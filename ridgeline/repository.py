"""The model repository, in the layout of NVIDIA's Triton Inference Server.

    <root>/<name>/config.pbtxt          contract, batching, labels; completed if absent
    <root>/<name>/<output>_labels.txt   one class name a line
    <root>/<name>/<version>/model.onnx
    <root>/<name>/<version>/model_card.json   cost, parity proof, training, digests

Publishing is atomic: whoever lists the repository sees a version whole or not at all.
"""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from tritonclient.grpc import model_config_pb2

from ridgeline.cost import ModelCost
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.model import format_config, parse_config, spec_of

CONFIG_FILE = "config.pbtxt"
CARD_FILE = "model_card.json"
MODEL_FILE = "model.onnx"


@dataclass(frozen=True)
class ModelCard:
    """What is known of one version: how it was made, what it costs, that it answers as trained.

    `cost` is None where the graph leaves it open; `training` and `parity` are the summaries that
    the stages wrote; `sha256` maps each file of the version to its digest.
    """

    cost: ModelCost | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    created: str = ""

    def __post_init__(self) -> None:
        for name in ("parity", "training", "packages", "sha256"):
            if not isinstance(getattr(self, name), Mapping):
                raise InvalidInput(f"{name} must be a table, received {getattr(self, name)!r}")


@dataclass(frozen=True)
class RepositoryModel:
    """One model of a repository: its folder, its versions in rising order, its configuration.

    `given_config` stands in for config.pbtxt, where there is one.
    """

    name: str
    directory: Path
    versions: tuple[int, ...]
    given_config: model_config_pb2.ModelConfig | None = None

    def version_directory(self, version: int) -> Path:
        """The folder that holds the files of `version`."""
        return self.directory / str(version)

    def read_config(self) -> model_config_pb2.ModelConfig | None:
        """The configuration, or None where there is none: it must be completed from the graph.

        Raises InvalidInput where it is no text, cannot be parsed, or names another model.
        """
        if self.given_config is not None:
            config = model_config_pb2.ModelConfig()
            config.CopyFrom(self.given_config)
            return config
        path = self.directory / CONFIG_FILE
        if not path.exists():
            return None
        config = parse_config(_text(path), source=str(path))
        if config.name not in ("", self.name):
            raise InvalidInput(
                f"{path} names the model {config.name!r}, but its folder is {self.name!r}"
            )
        config.name = self.name
        return config


def scan(root: Path) -> list[RepositoryModel]:
    """The models of a repository, by name. Raises NotFound where `root` is not a folder."""
    if not root.is_dir():
        raise NotFound(f"there is no model repository at {root}")
    return [
        RepositoryModel(name=folder.name, directory=folder, versions=_versions(folder))
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    ]


def look_up(
    root: Path, *, name: str, config: model_config_pb2.ModelConfig | None = None
) -> RepositoryModel:
    """One model of a repository, with another configuration where one is given. Raises NotFound."""
    folder = root / name
    if not name or "/" in name or "\0" in name or name.startswith(".") or not folder.is_dir():
        raise NotFound(f"the model repository has no folder {name!r}")
    return RepositoryModel(name, folder, _versions(folder), given_config=config)


def read_labels(
    directory: Path, config: model_config_pb2.ModelConfig
) -> dict[str, tuple[str, ...]]:
    """Class names by output, from the label files that the configuration names.

    Raises NotFound where one is missing, InvalidInput where it is no text.
    """
    return {
        output.name: tuple(_text(directory / output.label_filename).splitlines())
        for output in config.output
        if output.label_filename
    }


def read_card(version_directory: Path) -> ModelCard | None:
    """The model card of a version, or None where it has none. Raises CorruptData."""
    path = version_directory / CARD_FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        return ModelCard(
            **{**table, "cost": ModelCost.from_table(table["cost"]) if table["cost"] else None}
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptData(f"{path} is not a model card: {error}") from error


def check_digests(version_directory: Path, *, card: ModelCard) -> None:
    """Compare each file of a version with the digest in its card. Raises CorruptData."""
    for file, expected in card.sha256.items():
        path = version_directory / file
        if not path.is_file():
            raise CorruptData(f"{path} is missing, but {CARD_FILE} lists it")
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != expected:
            raise CorruptData(
                f"{path} has the SHA-256 {found}, but {CARD_FILE} promises {expected}"
            )


def publish(
    files: Mapping[str, bytes],
    *,
    config: model_config_pb2.ModelConfig,
    card: ModelCard,
    labels: Mapping[str, Sequence[str]],
    root: Path,
) -> Path:
    """Publish `files` as the next version of the model that `config` names; returns its folder.

    The version is staged beside the repository and renamed into it, so that a server watching the
    repository sees all of it or nothing; a publisher killed half-way leaves the repository as it
    was. Raises InvalidInput where earlier versions have other inputs or outputs.
    """
    config = _with_labels(config, labels)
    root.mkdir(parents=True, exist_ok=True)
    with _staging(root) as stage:
        model = RepositoryModel(config.name, root / config.name, _versions(root / config.name))
        _refuse_other_contract(model, config)
        version = max(model.versions, default=0) + 1
        card = replace(card, sha256=_digests(files), created=_now())
        staged = stage / config.name
        contents = {CARD_FILE: json.dumps(asdict(card), indent=2).encode(), **files}
        for file, data in contents.items():
            _write(staged / str(version) / file, data)
        _write(staged / CONFIG_FILE, format_config(config).encode())
        for output, names in labels.items():
            _write(staged / _label_file(output), "".join(f"{name}\n" for name in names).encode())
        _move(staged, into=model, version=version)
        return model.version_directory(version)


def _move(staged: Path, *, into: RepositoryModel, version: int) -> None:
    """Rename the staged files to their places: one rename for a new model, one a file otherwise."""
    if not into.directory.exists():
        staged.rename(into.directory)
        _sync(into.directory.parent)
        return
    for path in sorted(staged.iterdir()):  # config and labels hold for old and new version alike
        if path.is_file():
            path.replace(into.directory / path.name)
    (staged / str(version)).rename(into.version_directory(version))
    _sync(into.directory)


@contextlib.contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """An empty folder beside `root`, on its file system, held by one publisher at a time.

    Triton takes every folder inside a repository for a model, hidden ones too, hence the sibling.
    What a killed publisher left in it is removed by the next one.
    """
    stage = root.resolve().parent / f".{root.resolve().name}.staging"
    stage.mkdir(exist_ok=True)
    if stage.stat().st_dev != root.stat().st_dev:
        raise InvalidInput(f"{stage} must be on the file system of {root}, to publish by renaming")
    descriptor = os.open(stage, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _clear(stage)
        yield stage
    finally:
        _clear(stage)
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path)


def _refuse_other_contract(model: RepositoryModel, config: model_config_pb2.ModelConfig) -> None:
    earlier = model.read_config()
    if earlier is None or not (earlier.input and earlier.output):  # left to the graph
        return
    old, new = spec_of(earlier), spec_of(config)
    if (old.inputs, old.outputs) != (new.inputs, new.outputs):
        raise InvalidInput(
            f"{model.directory} holds a model with other inputs or outputs "
            f"({old.inputs}, {old.outputs}); "
            "publish this one under another name"
        )


def _with_labels(
    config: model_config_pb2.ModelConfig, labels: Mapping[str, Sequence[str]]
) -> model_config_pb2.ModelConfig:
    config = type(config).FromString(config.SerializeToString())
    outputs = {output.name: output for output in config.output}
    for name in labels:
        if name not in outputs:
            raise InvalidInput(
                f"labels are given for {name!r}; outputs of {config.name!r} are {list(outputs)}"
            )
        outputs[name].label_filename = _label_file(name)
    return config


def _label_file(output: str) -> str:
    return f"{output}_labels.txt"


def _versions(folder: Path) -> tuple[int, ...]:
    if not folder.is_dir():
        return ()
    numbers = (path.name for path in folder.iterdir() if path.is_dir())
    # "02" is no version: its folder could not be found again under the number 2.
    return tuple(sorted(int(name) for name in numbers if re.fullmatch("[1-9][0-9]*", name)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"{path} is missing") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text: {error}") from error


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
