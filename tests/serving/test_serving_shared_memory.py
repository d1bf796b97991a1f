"""Regions of shared memory, as an attacker would register and treat them."""

import gc
import os
import socket

import pytest

from ridgeline.errors import AlreadyThere, InvalidInput, NotFound, Unavailable
from serving.shared_memory import Regions


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "shm"
    folder.mkdir()
    (folder / "memory").write_bytes(bytes(range(100)))
    return folder


@pytest.fixture
def regions(folder):
    regions = Regions(folder=folder)
    yield regions
    regions.unregister("")


def _register(regions, *, name="r", key="/memory", offset=0, size=100):
    regions.register(name, key=key, offset=offset, size_bytes=size)
    return regions.find(name)


def test_a_region_is_read_and_written_from_its_offset_on(regions, folder):
    region = _register(regions, offset=10, size=50)

    assert region.read(offset=5, size_bytes=3) == bytes([15, 16, 17])
    region.write(b"abc", offset=47)

    assert (folder / "memory").read_bytes()[57:60] == b"abc"
    assert region.read(offset=50, size_bytes=0) == b""


def test_where_regions_are_whole_pages_their_offsets_are_multiples(folder):
    regions = Regions(folder=folder, offset_unit_bytes=50)

    assert _register(regions, offset=50, size=3).read(offset=0, size_bytes=1) == bytes([50])
    with pytest.raises(InvalidInput, match="must be a multiple of 50 bytes, a page, received 10"):
        _register(regions, name="other", offset=10, size=3)


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 101), (100, 1), (101, 0), (-1, 1), (0, -1), (2**63, 1), (1, 2**64)]
)
def test_nothing_outside_a_region_is_reached(regions, offset, size):
    region = _register(regions)

    with pytest.raises(InvalidInput, match="Invalid offset"):
        region.read(offset=offset, size_bytes=size)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        ".",
        "..",
        "/../memory",
        "a/b",
        "//memory",
        "/etc/passwd",
        "x\0y",
        "x" * 300,
        "é" * 200,
        "/nope",
        "/folder",
        "/link",
        "/pipe",
        "/socket",
        "/sem.lock",
        "/ridgeline-1",
        "triton_anything",
    ],
)
def test_what_is_no_shared_memory_for_clients_is_refused(regions, folder, monkeypatch, key):
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    (folder.parent / "memory").write_bytes(bytes(100))
    os.mkfifo(folder / "pipe")
    for name in ("sem.lock", "ridgeline-1", "triton_anything"):
        (folder / name).write_bytes(bytes(100))
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(InvalidInput, match="failed to register shared memory region 'r'"):
            _register(regions, key=key)

    assert list(regions) == []


def test_only_keys_of_the_pattern_are_admitted(folder):
    regions = Regions(folder=folder, key_pattern="/m.*y")
    _register(regions)
    regions.unregister("r")
    with pytest.raises(InvalidInput, match="is not admitted here"):
        _register(regions, key="memory")
    with pytest.raises(InvalidInput, match="is not admitted here"):
        _register(Regions(folder=folder, key_pattern=""))


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 101), (100, 1), (1, 100), (0, 0), (0, -1), (-1, 5), (2**63, 2**63), (2**63 - 1, 1)],
)
def test_a_region_that_is_not_all_in_the_memory_is_refused(regions, offset, size):
    with pytest.raises(InvalidInput, match="failed to register shared memory region 'r'"):
        _register(regions, offset=offset, size=size)


def test_names_are_unique_and_known(regions):
    _register(regions)
    _register(regions, name="s", offset=3, size=4)

    with pytest.raises(AlreadyThere, match="'r' already in manager"):
        _register(regions)
    with pytest.raises(NotFound, match="region: 'x'"):
        regions.find("x")
    with pytest.raises(NotFound, match="region: 'x'"):
        regions.listed("x")
    with pytest.raises(InvalidInput, match="1 to 250 characters"):
        _register(regions, name="x" * 251)
    assert [region.name for region in regions.listed("")] == ["r", "s"]
    assert [region.offset for region in regions.listed("s")] == [3]


def test_a_memory_that_was_shrunk_is_an_error_and_is_not_made_larger(regions, folder):
    region = _register(regions)
    os.truncate(folder / "memory", 10)

    with pytest.raises(InvalidInput, match="is smaller than when it was registered"):
        region.read(offset=0, size_bytes=20)
    with pytest.raises(InvalidInput, match="is smaller than when it was registered"):
        region.write(bytes(20), offset=0)

    assert (folder / "memory").stat().st_size == 10
    assert region.read(offset=0, size_bytes=10) == bytes(range(10))


def test_a_region_in_use_outlives_its_registration_and_its_file(regions, folder):
    region = _register(regions)
    (folder / "memory").unlink()
    regions.unregister("r")

    region.write(b"abc", offset=0)

    assert region.read(offset=0, size_bytes=3) == b"abc"


def test_files_are_closed_with_the_last_who_holds_a_region(regions):
    before = len(os.listdir("/proc/self/fd"))
    held = _register(regions)
    _register(regions, name="s")
    with pytest.raises(InvalidInput):
        _register(regions, name="t", size=101)

    regions.unregister("")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del held
    gc.collect()

    assert len(os.listdir("/proc/self/fd")) == before


def test_regions_cannot_use_up_all_file_descriptors(folder, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (6, 6))
    regions = Regions(folder=folder)
    for number in range(3):
        _register(regions, name=str(number))

    with pytest.raises(Unavailable, match="no more than 3"):
        _register(regions, name="one more")
    regions.unregister("")
