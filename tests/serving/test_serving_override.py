"""What a request to load may bring: no path leads out of its folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.errors import InvalidInput
from serving.override import Override, OverrideFolder, overridden

BAD_PATHS = [
    "model.onnx", "1", "1/", "/1/a", "0/a", "01/a", "-1/a", "x/a", "1/..", "1/../a", "1/./a",
    "1//a", "../1/a", "1/.hidden", "1/a\\b", "1/a\0", "1/a\n", "", "1/" + "a" * 600,
    "1/" + "a/" * 20 + "b", "\N{ARABIC-INDIC DIGIT ONE}/a", "9" * 30 + "/a",
]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_that_could_lead_elsewhere_are_refused(path):
    with pytest.raises(InvalidInput, match="must be 'file:<version>/<name>'"):
        Override("{}", {path: b""})


@given(st.text(alphabet="12./\\a\0 ", max_size=12))
def test_whatever_is_accepted_lies_below_the_folder_of_its_version(path):
    try:
        Override("{}", {path: b""})
    except InvalidInput:
        return
    parts = path.split("/")
    assert parts[0].isdigit()
    assert all(part not in ("", ".", "..") for part in parts)


def test_there_is_a_bound_to_the_number_of_files():
    with pytest.raises(InvalidInput, match="at most 1000 files, received 1001"):
        Override("{}", {f"1/{number}": b"" for number in range(1001)})


@pytest.mark.parametrize(
    "config",
    ["", "{", "[]", "5", '{"nope": 1}', '{"max_batch_size": "x"}', '{"name": "other"}', "[" * 9999],
)
def test_a_configuration_that_is_none_is_refused(config, tmp_path):
    with pytest.raises(InvalidInput, match="'config'"):
        overridden("m", Override(config), root=tmp_path)


def test_files_below_folders_are_written_and_go_with_the_last_holder(tmp_path):
    override = Override('{"backend": "onnxruntime"}', {"3/model/weights.bin": b"w", "3/a": b"a"})

    model, folder = overridden("m", override, root=tmp_path)

    assert isinstance(folder, OverrideFolder)
    assert model.versions == (3,)
    assert (model.version_directory(3) / "model" / "weights.bin").read_bytes() == b"w"
    assert model.read_config().backend == "onnxruntime"
    folder.hold()
    folder.release()
    assert folder.path.exists()
    folder.release()
    assert not folder.path.exists()
