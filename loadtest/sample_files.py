"""Samples in files: what each kind of file holds, with the samples along the first axis.

    .npz              an array for each input, and for what is right: an output, or `label`
    .npy              an array for the model's only input: one sample, or several
    .jsonl, .ndjson   a sample a line: {"x": [[0.5, ...], ...], "label": 3, "y": [...]}
    any other         a sample as it is, such as a JPEG or a PNG, for a model that takes bytes

A folder stands for its files in the order of their names. What is right of a file that is an array
or is sent as it is stands beside it, in NAME.json: {"label": 3}, or a list of such for several
samples.
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.served import ServedModel
from ridgeline.datatypes import datatype
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.model import FREE, TensorSpec

LABEL = "label"
_LINES = (".jsonl", ".ndjson")
_ANSWERS = ".json"  # behind the whole name of the file that they belong to
_TEXT = datatype("BYTES").numpy

Array = npt.NDArray[Any]


def files_in(paths: Sequence[Path]) -> list[Path]:
    """The files that hold samples; raises NotFound where a folder has none."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        own = sorted(each for each in path.iterdir() if each.is_file() and _holds_samples(each))
        if not own:
            raise NotFound(f"the folder {path} holds no files with samples")
        found += own
    return found


def _holds_samples(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix != _ANSWERS


def read_file(path: Path, *, model: ServedModel) -> dict[str, Array]:
    """The arrays of a file, by the names of inputs and outputs, and LABEL.

    Raises NotFound, CorruptData, or InvalidInput where the model cannot take what it is.
    """
    if path.suffix == ".npz":
        return _archive(path)
    if path.suffix in _LINES:
        rows = [_json(line, path=path) for line in _text(path).splitlines() if line.strip()]
        return _columns(rows, path=path, model=model)
    whole = _array(path, model=model) if path.suffix == ".npy" else _bytes(path, model=model)
    return {_only_input(path, model=model).name: whole, **_answers(path, whole=whole, model=model)}


def _archive(path: Path) -> dict[str, Array]:
    archive: dict[str, Array] | Array = _loaded(path, what="an .npz archive of arrays")
    if isinstance(archive, np.ndarray):
        raise CorruptData(f"{path} is a single array (.npy); expected an .npz archive")
    return archive


def _loaded(path: Path, *, what: str) -> Any:
    try:
        with path.open("rb") as file:  # np.load itself leaves a damaged file open
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else dict(found)
    except (FileNotFoundError, IsADirectoryError):
        raise NotFound(f"there is no file {path}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise CorruptData(f"{path} is not {what}: {error}") from error


def _array(path: Path, *, model: ServedModel) -> Array:
    """Several samples where the array has as many axes as the model's input, one with one less."""
    tensor = _only_input(path, model=model)
    array = _loaded(path, what="an array (.npy)")
    if not isinstance(array, np.ndarray):
        raise CorruptData(f"{path} is an archive (.npz); expected a single array")
    return array[np.newaxis] if array.ndim == len(tensor.shape) - 1 else array


def _bytes(path: Path, *, model: ServedModel) -> Array:
    tensor = _only_input(path, model=model)
    shape = [1 if size == FREE else size for size in tensor.shape[1:]]
    if tensor.datatype != "BYTES" or any(size != 1 for size in shape):
        raise InvalidInput(
            f"{path} would be sent as it is, but each sample of {tensor.name!r} of model "
            f"{model.name!r} is {tensor.datatype} {list(tensor.shape[1:])}: give arrays (.npy, "
            ".npz, .jsonl), or name a model that takes files, such as `ridgeline pipeline` makes"
        )
    whole = np.empty((1, *shape), dtype=_TEXT)
    whole[...] = _read(path)
    return whole


def _only_input(path: Path, *, model: ServedModel) -> TensorSpec:
    if len(model.inputs) != 1:
        names = [tensor.name for tensor in model.inputs]
        raise InvalidInput(
            f"{path} holds one input, but model {model.name!r} has {names}: give .npz or .jsonl"
        )
    return model.inputs[0]


def _answers(path: Path, *, whole: Array, model: ServedModel) -> dict[str, Array]:
    """What is right, from the file beside that one; nothing where there is none."""
    beside = path.with_name(path.name + _ANSWERS)
    if not beside.is_file():
        return {}
    found = _json(_text(beside), path=beside)
    rows = found if isinstance(found, list) else [found]
    columns = _columns(rows, path=beside, model=model)
    if len(rows) != len(whole):
        raise InvalidInput(
            f"{beside} tells the answers of {len(rows)} samples; {path} holds {len(whole)}"
        )
    if taken := sorted({tensor.name for tensor in model.inputs} & set(columns)):
        raise InvalidInput(f"{beside} must hold answers; found the input {taken[0]!r}")
    return columns


def _columns(rows: Sequence[Any], *, path: Path, model: ServedModel) -> dict[str, Array]:
    """Objects with the same names as arrays, of the datatypes that the model says."""
    kinds = {each.name: datatype(each.datatype).numpy for each in (*model.inputs, *model.outputs)}
    try:
        names = list(rows[0])
        if any(set(row) != set(names) for row in rows):
            raise ValueError("the names differ")
        return {name: _column([row[name] for row in rows], kinds.get(name)) for name in names}
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise CorruptData(
            f"{path} must hold JSON objects, each with the same names: {error!r}"
        ) from error


def _column(values: Sequence[Any], kind: "np.dtype[Any] | None") -> Array:
    if kind is None:
        return np.array(values)
    if kind != _TEXT:
        found = np.array(values)
        if kind.kind in "iu" and found.dtype.kind not in "iub":
            raise ValueError(f"expected whole numbers, found {found.dtype}")
        return np.array(values, dtype=kind)
    texts = np.array(values, dtype=_TEXT)
    for place, text in np.ndenumerate(texts):
        texts[place] = text.encode()
    return texts


def _json(text: str, *, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise CorruptData(f"{path} does not hold JSON: {error}") from error


def _text(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise CorruptData(f"{path} is not a text in UTF-8: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFound(f"there is no file {path} to be read: {error.strerror}") from error
