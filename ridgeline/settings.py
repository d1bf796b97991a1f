"""Settings named once: the fields of a frozen dataclass become flags, variables and TOML keys.

    @dataclass(frozen=True)
    class ServeSettings:
        http_port: int = setting(8000, help="port of the HTTP front end, 0 picks a free one")

gives `--http-port`, `RIDGELINE_SERVE_HTTP_PORT` and `http_port` under `[serve]`. Flags win over the
environment, the environment over the file, the file over the defaults. Unknown keys are errors.
"""

import argparse
import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

from ridgeline.errors import InvalidInput, NotFound, WrongUsage

T = TypeVar("T")

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def setting(default: Any, *, help: str) -> Any:
    """A dataclass field with its default and the one sentence that documents it everywhere."""
    return field(default=default, metadata={"help": help})


def add_settings(parser: argparse.ArgumentParser, *, cls: type, section: str) -> None:
    """Add one flag per field of `cls`, and `--config FILE` for a TOML file with `[section]`."""
    group = parser.add_argument_group(
        "settings",
        f"also read from RIDGELINE_{section.upper()}_<NAME> and from [{section}] in a TOML file",
    )
    group.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        group.add_argument(
            "--" + spec.name.replace("_", "-"),
            dest=f"setting_{spec.name}",
            metavar=spec.name.split("_")[-1].upper(),
            default=None,
            action="append" if typing.get_origin(hints[spec.name]) is tuple else "store",
            help=f"{spec.metadata.get('help', '')} (default: {_shown(spec.default)})".replace(
                "%", "%%"
            ),
        )


def load_settings(
    cls: type[T], *, section: str, arguments: argparse.Namespace, environ: Mapping[str, str]
) -> T:
    """Build `cls` from flags, environment, TOML file and defaults, in that order of precedence.

    Raises InvalidInput for an unknown key or a value of the wrong type, naming where it stood
    (WrongUsage where that was a flag).
    """
    file = arguments.config or environ.get("RIDGELINE_CONFIG")
    table = read_toml(Path(file)).get(section, {}) if file else {}
    if not isinstance(table, Mapping):
        raise InvalidInput(f"{file}: {section} must be a table, received {table!r}")
    values = _checked_table(cls, table, source=f"{file} [{section}]")
    hints = typing.get_type_hints(cls)
    error: type[InvalidInput]
    for spec in dataclasses.fields(cls):  # type: ignore[arg-type]
        variable = f"RIDGELINE_{section.upper()}_{spec.name.upper()}"
        flag = _flag(arguments, spec.name)
        if flag is not None:
            source, text, error = "--" + spec.name.replace("_", "-"), flag, WrongUsage
        elif variable in environ:
            source, text, error = variable, environ[variable], InvalidInput
        else:
            continue
        values[spec.name] = _from_text(text, hint=hints[spec.name], source=source, error=error)
    try:
        return cls(**values)
    except InvalidInput as error_of_value:  # the dataclass itself refuses it
        flags = [spec.name for spec in dataclasses.fields(cls) if _flag(arguments, spec.name)]  # type: ignore[arg-type]
        if any(name in str(error_of_value) for name in flags):
            raise WrongUsage(str(error_of_value)) from None
        raise


def _flag(arguments: argparse.Namespace, name: str) -> str | list[str] | None:
    """What the user wrote behind the flag of that field, None where it was not given.

    A flag that may be repeated gives a list.
    """
    value: str | list[str] | None = getattr(arguments, f"setting_{name}", None)
    return value


def from_table(cls: type[T], table: Mapping[str, Any], *, source: str) -> T:
    """Build the dataclass `cls` from a TOML table; fields that are dataclasses take sub-tables.

    Raises InvalidInput naming `source` and the key for unknown keys, missing keys and wrong types.
    """
    values = _checked_table(cls, table, source=source)
    required = [
        spec.name
        for spec in dataclasses.fields(cls)  # type: ignore[arg-type]
        if spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in values]:
        raise InvalidInput(f"{source}: missing {', '.join(map(repr, missing))}")
    return cls(**values)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises NotFound, or InvalidInput where it is no file of TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}") from error


def _checked_table(cls: type, table: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    known = [spec.name for spec in dataclasses.fields(cls)]
    if unknown := [key for key in table if key not in known]:
        raise InvalidInput(
            f"{source}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}"
        )
    return {
        key: _checked(value, hint=hints[key], source=f"{source}: {key}")
        for key, value in table.items()
    }


def _checked(value: Any, *, hint: Any, source: str) -> Any:
    hint = _without_none(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return from_table(hint, value, source=source)
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_checked(item, hint=typing.get_args(hint)[0], source=source) for item in value)
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise InvalidInput(f"{source} must be {_type_name(hint)}, received {value!r}")


def _from_text(text: str | list[str], *, hint: Any, source: str, error: type[InvalidInput]) -> Any:
    hint = _without_none(hint)
    if typing.get_origin(hint) is tuple:  # a flag is repeated, a variable has commas
        texts = text if isinstance(text, list) else [part for part in text.split(",") if part]
        item = typing.get_args(hint)[0]
        return tuple(_from_text(part, hint=item, source=source, error=error) for part in texts)
    if isinstance(text, list):
        text = text[-1]
    try:
        if hint is bool:
            if text.lower() not in _TRUE | _FALSE:
                raise ValueError(text)
            return text.lower() in _TRUE
        return hint(text)
    except ValueError:
        raise error(f"{source} must be {_type_name(hint)}, received {text!r}") from None


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    return hint


def _type_name(hint: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        Path: "a path",
    }
    if typing.get_origin(hint) is tuple:
        return f"a list of {_type_name(typing.get_args(hint)[0])}"
    return names.get(hint, f"a table ({getattr(hint, '__name__', hint)})")


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
