"""Data sets from archives: small ones of the same format, written here from its description."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ridgeline.errors import CorruptData, InvalidInput, MissingData
from training import datasets
from training.datasets import archives, cifar10, fashion_mnist
from training.datasets.archives import Archive

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
Pack = Callable[[Mapping[str, bytes]], Path]


def pictures(count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Levels [count, 3, 32, 32] and classes."""
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3, 32, 32), np.uint8), random.integers(0, 10, count)


def records(count: int, *, seed: int = 0) -> bytes:
    levels, classes = pictures(count, seed=seed)
    return b"".join(
        bytes([label]) + image.tobytes() for label, image in zip(classes, levels, strict=True)
    )


def byte_string(value: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(value)) + value


def written_by_python_2(count: int, *, seed: int = 0) -> bytes:
    """A table as cPickle wrote it: byte strings, numpy's array under its old module name."""
    levels, classes = pictures(count, seed=seed)
    whole = b"".join(b"K" + bytes([label]) for label in classes)
    shape = b"M" + struct.pack("<H", count) + b"M" + struct.pack("<H", 3072) + b"\x86"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + byte_string(b"b")
    dtype = b"cnumpy\ndtype\n(" + byte_string(b"u1") + b"K\x00K\x01tR(K\x03" + byte_string(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = empty + b"tR(K\x01" + shape + dtype + b"\x89" + byte_string(levels.tobytes()) + b"tb"
    table = byte_string(b"data") + array + byte_string(b"labels") + b"](" + whole + b"e"
    return b"\x80\x02}(" + table + b"u."


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """packed(files): the archive with these files, whose digest then counts as the right one."""

    def pack(files: Mapping[str, bytes]) -> Path:
        kind = "BINARY" if any(name.endswith(".bin") for name in files) else "PICKLED"
        published = getattr(cifar10, kind)
        path = tmp_path / published.name
        with tarfile.open(path, "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        monkeypatch.setattr(cifar10, kind, replace(published, md5=digest))
        return path

    return pack


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to fill it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(archives.urllib.request, "urlopen", refuse)
    return tmp_path / "cache/ridgeline/datasets"


@pytest.mark.parametrize(("suffix", "form"), [(".bin", records), ("", written_by_python_2)])
def test_both_forms_of_cifar_10_give_the_same_images(
    packed: Pack, suffix: str, form: Callable[..., bytes]
) -> None:
    path = packed({name + suffix: form(3, seed=n) for n, name in enumerate(BATCHES)})
    data = datasets.load("cifar10", folder=path.parent)
    assert data.training.inputs.shape == (15, 32, 32, 3)
    assert data.test.inputs.dtype == np.float32
    for part, seed, place in ((data.training, 1, 3), (data.test, 5, 0)):
        levels, classes = pictures(3, seed=seed)
        images = part.inputs[place : place + 3]
        assert np.array_equal(images, levels.transpose(0, 2, 3, 1).astype(np.float32) / 255)
        assert part.labels[place : place + 3].tolist() == classes.tolist()
    assert data.classes[data.test.labels[0]] == cifar10.CLASSES[pictures(3, seed=5)[1][0]]


def test_a_pickled_batch_can_run_nothing(packed: Pack, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    path = packed(dict.fromkeys(BATCHES, pickle.dumps({b"data": Trap()}, protocol=2)))
    with pytest.raises(CorruptData, match=r"data_batch_1: a batch has no use for"):
        datasets.load("cifar10", folder=path.parent)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is no pickled batch"),
        (pickle.dumps([1]), "is no pickled batch"),
        (pickle.dumps({b"data": b"x", b"labels": [1]}), r"must hold bytes \[samples, 3072\]"),
        (written_by_python_2(2).replace(b"](K", b"](K\x63K", 1), "must hold bytes"),
        (written_by_python_2(1)[:-4] + b"\x0ceu.", "must have classes from 0 to 9"),
    ],
)
def test_a_pickled_batch_of_another_kind_is_named(content: bytes, complaint: str) -> None:
    with pytest.raises(CorruptData, match=f"^the batch.* {complaint}"):
        cifar10.unpickled(content, source="the batch")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "must hold records of 3073 bytes, has 0"),
        (records(2)[:-1], "must hold records of 3073 bytes, has 6145"),
        (bytes([10]) + bytes(3072), "must have classes from 0 to 9"),
    ],
)
def test_a_binary_batch_of_another_kind_is_named(data: bytes, complaint: str) -> None:
    with pytest.raises(CorruptData, match=f"^the batch {complaint}"):
        cifar10.parse_records(data, source="the batch")


def test_an_archive_without_a_batch_is_refused_with_its_name(packed: Pack) -> None:
    path = packed({f"{name}.bin": records(1) for name in BATCHES[:-1]})
    with pytest.raises(CorruptData, match=r"lacks test_batch\.bin"):
        datasets.load("cifar10", folder=path.parent)


def test_a_damaged_archive_is_noticed_by_its_digest_and_else_by_its_form(
    packed: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed({f"{name}.bin": records(1) for name in BATCHES})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CorruptData, match="must have the MD5"):
        datasets.load("cifar10", folder=path.parent)
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10, "BINARY", replace(cifar10.BINARY, md5=digest))
    with pytest.raises(CorruptData, match=r"must be a whole tar\.gz archive"):
        datasets.load("cifar10", folder=path.parent)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


@pytest.fixture
def clothes(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four small files of Fashion-MNIST's names, whose digests then count as the right ones."""
    random = np.random.default_rng(0)
    arrays = [
        array
        for count in (6, 4)
        for array in (
            random.integers(0, 256, (count, 28, 28), np.uint8),
            np.arange(count, dtype=np.uint8),
        )
    ]
    files = {
        archive.name: idx(array)
        for archive, array in zip(fashion_mnist.ARCHIVES, arrays, strict=True)
    }
    known = tuple(
        Archive(name, f"https://there/{name}", hashlib.md5(content).hexdigest())
        for name, content in files.items()
    )
    monkeypatch.setattr(fashion_mnist, "ARCHIVES", known)
    return files


def test_fashion_mnist_is_read_like_mnist(clothes: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in clothes.items():
        (tmp_path / name).write_bytes(content)
    data = datasets.load("fashion_mnist", folder=tmp_path)
    assert data.training.inputs.shape == (6, 32, 32, 1)
    assert data.test.labels.tolist() == [0, 1, 2, 3]
    assert not data.test.inputs[:, :2].any()
    assert data.classes[9] == "Ankle boot"


def test_files_that_do_not_belong_together_are_refused(
    clothes: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [archive.name for archive in fashion_mnist.ARCHIVES]
    swapped = {**clothes, names[0]: clothes[names[2]]}
    for name, content in swapped.items():
        (tmp_path / name).write_bytes(content)
    known = [
        replace(a, md5=hashlib.md5(swapped[a.name]).hexdigest()) for a in fashion_mnist.ARCHIVES
    ]
    monkeypatch.setattr(fashion_mnist, "ARCHIVES", tuple(known))
    with pytest.raises(CorruptData, match=r"received \[4, 28, 28\] and \[6\]"):
        datasets.load("fashion_mnist", folder=tmp_path)


def test_what_is_not_here_is_downloaded_once_into_the_cache(
    clothes: dict[str, bytes], no_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def answer(url: str, *, timeout: float) -> io.BytesIO:  # noqa: ARG001
        asked.append(url)
        return io.BytesIO(clothes[url.rpartition("/")[2]])

    monkeypatch.setattr(archives.urllib.request, "urlopen", answer)
    first = datasets.load("fashion_mnist")
    again = datasets.load("fashion_mnist")
    assert np.array_equal(first.training.inputs, again.training.inputs)
    assert asked == [archive.url for archive in fashion_mnist.ARCHIVES]
    kept = no_network / "fashion_mnist"
    assert sorted(path.name for path in kept.iterdir()) == sorted(clothes)


def test_a_download_that_is_not_the_published_file_leaves_nothing(
    clothes: dict[str, bytes], no_network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = io.BytesIO(b"<html>log in first</html>")
    monkeypatch.setattr(archives.urllib.request, "urlopen", lambda *_, **__: page)
    with pytest.raises(CorruptData, match="must have the MD5"):
        datasets.load("fashion_mnist")
    assert list((no_network / "fashion_mnist").iterdir()) == []
    assert clothes


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cifar10", ["cifar-10-binary.tar.gz or cifar-10-python.tar.gz"]),
        (
            "fashion_mnist",
            ["train-images-idx3-ubyte.gz, train-labels", "t10k-labels-idx1-ubyte.gz"],
        ),
    ],
)
def test_without_a_network_the_error_says_which_files_to_put_where(
    no_network: Path, name: str, files: list[str]
) -> None:
    with pytest.raises(MissingData) as told:
        datasets.load(name)
    for part in (*files, str(no_network / name), "https://", "--data", "no network"):
        assert part in str(told.value)


def test_a_folder_without_the_files_is_refused_and_nothing_is_downloaded(
    tmp_path: Path, no_network: Path
) -> None:
    with pytest.raises(MissingData, match=r"must hold cifar-10-binary\.tar\.gz or cifar-10-python"):
        datasets.load("cifar10", folder=tmp_path)
    assert not no_network.exists()


def test_a_folder_for_a_data_set_that_reads_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'mnist' reads no files of yours"):
        datasets.load("mnist", folder=tmp_path)
