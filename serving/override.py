"""What a request to load a model brings with it: a configuration, and files of the model.

The files are written below a temporary folder of this process, which nobody else may enter, and
which goes when the last version that was loaded from it has gone.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput, Unusable
from ridgeline.model import format_config
from ridgeline.repository import CONFIG_FILE, RepositoryModel, look_up

_MOST_FILES = 1_000
_MOST_PATH_CHARACTERS = 512
_MOST_PARTS = 16
_VERSION = re.compile("[1-9][0-9]{0,17}")
_SHOWN_CHARACTERS = 80  # of what a client sent, in an error text


@dataclass(frozen=True)
class Override:
    """A configuration (JSON) instead of config.pbtxt, and files by "version/name".

    Raises InvalidInput where files come without a configuration, as in Triton, or one has a path
    that could lead elsewhere.
    """

    config: str
    files: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.files) > _MOST_FILES:
            raise InvalidInput(f"at most {_MOST_FILES} files, received {len(self.files)}")
        for path in self.files:
            _check_path(path)

    def model_config(self, name: str) -> model_config_pb2.ModelConfig:
        """The configuration. Raises InvalidInput where it is none, or that of another model."""
        config = model_config_pb2.ModelConfig()
        try:
            json_format.ParseDict(_object(self.config), config)
        except (json_format.ParseError, ValueError, RecursionError) as error:
            raise InvalidInput(f"the parameter 'config' of {name!r} is none: {error}") from error
        if config.name not in ("", name):
            raise InvalidInput(
                f"the parameter 'config' names the model {config.name!r}, expected {name!r}"
            )
        config.name = name
        return config


class OverrideFolder:
    """A temporary folder with files of a model; it goes when nobody holds it any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="ridgeline-model-"))
        self._holders = 1

    def hold(self) -> None:
        """Keep it for one more."""
        self._holders += 1

    def release(self) -> None:
        """Keep it for one less."""
        self._holders -= 1
        if not self._holders:
            shutil.rmtree(self.path, ignore_errors=True)


def overridden(
    name: str, override: Override, *, root: Path
) -> tuple[RepositoryModel, OverrideFolder | None]:
    """The model that a request to load describes, and the folder that holds its files, if any.

    Without files, those of the repository are taken. Blocks. Raises InvalidInput, NotFound.
    """
    config = override.model_config(name)
    if not override.files:
        return look_up(root, name=name, config=config), None
    folder = OverrideFolder()
    try:
        directory = folder.path / name
        directory.mkdir()
        (directory / CONFIG_FILE).write_text(format_config(config), encoding="utf-8")
        for path, content in override.files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return look_up(folder.path, name=name), folder
    except (OSError, ValueError) as error:
        folder.release()
        raise InvalidInput(f"the files of {name!r} cannot be written: {error}") from error


def _object(text: str) -> dict[str, Any]:
    table = json.loads(text)
    if not isinstance(table, dict):
        raise ValueError(f"expected an object of JSON, received {text[:_SHOWN_CHARACTERS]!r}")
    return table


def _check_path(path: str) -> None:
    parts = PurePosixPath(path).parts
    wanted = (
        len(path) <= _MOST_PATH_CHARACTERS
        and 2 <= len(parts) <= _MOST_PARTS
        and "/".join(parts) == path
        and _VERSION.fullmatch(parts[0])
        and not any(part.startswith(".") or "\\" in part for part in parts)
        and path.isprintable()
    )
    if not wanted:
        raise Unusable(
            "a file's parameter must be 'file:<version>/<name>', "
            f"received {'file:' + path[:_SHOWN_CHARACTERS]!r}"
        )
