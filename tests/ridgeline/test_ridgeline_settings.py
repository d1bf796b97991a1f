"""Settings: where a value comes from, and what a wrong one is told."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ridgeline.errors import InvalidInput, NotFound, WrongUsage
from ridgeline.settings import add_settings, from_table, load_settings, setting


@dataclass(frozen=True)
class Door:
    width: int = setting(80, help="in centimetres")
    colour: str = setting("green", help="any word")
    open: bool = setting(False, help="whether one can pass")
    weight: float = setting(2.5, help="in kilograms")
    key: Path | None = setting(None, help="file with the key")
    sign: tuple[str, ...] = setting((), help="a word on it; may be repeated")


def load(*words, environ=None):
    parser = argparse.ArgumentParser()
    add_settings(parser, cls=Door, section="door")
    return load_settings(
        Door, section="door", arguments=parser.parse_args(words), environ=environ or {}
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "ridgeline.toml"
    path.write_text('[door]\nwidth = 90\ncolour = "red"\nweight = 3\n[window]\npanes = 4\n')
    return path


def test_without_anything_the_defaults_hold():
    assert load() == Door()


def test_flags_win_over_the_environment_and_that_over_the_file(file):
    environ = {"RIDGELINE_DOOR_WIDTH": "100", "RIDGELINE_DOOR_COLOUR": "blue"}
    door = load("--config", str(file), "--width", "110", environ=environ)
    assert (door.width, door.colour, door.weight) == (110, "blue", 3.0)


def test_the_environment_can_name_the_file(file):
    assert load(environ={"RIDGELINE_CONFIG": str(file)}).width == 90


@pytest.mark.parametrize(("text", "value"), [("yes", True), ("0", False), ("TRUE", True)])
def test_booleans_are_written_as_words(text, value):
    assert load("--open", text).open is value


def test_a_list_is_a_repeated_flag_a_variable_with_commas_or_a_list_of_the_file(file):
    assert load().sign == ()
    assert load("--sign", "a,b", "--sign", "c").sign == ("a,b", "c")
    assert load(environ={"RIDGELINE_DOOR_SIGN": "a,b"}).sign == ("a", "b")
    file.write_text('[door]\nsign = ["x", "y"]')
    assert load("--config", str(file)).sign == ("x", "y")


def test_an_optional_path_is_a_path():
    assert load("--key", "a/b").key == Path("a/b")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--width", "wide"], "--width must be a whole number, received 'wide'"),
        (["--open", "perhaps"], "--open must be true or false, received 'perhaps'"),
        (["--weight", "x"], "--weight must be a number, received 'x'"),
    ],
)
def test_a_flag_of_the_wrong_type_is_wrong_usage(words, told):
    with pytest.raises(WrongUsage) as error:
        load(*words)
    assert str(error.value) == told


def test_a_value_that_the_dataclass_refuses_is_wrong_usage_where_it_was_a_flag():
    @dataclass(frozen=True)
    class Gate(Door):
        def __post_init__(self):
            if self.width > 200:
                raise InvalidInput(f"width must be at most 200, received {self.width}")

    parser = argparse.ArgumentParser()
    add_settings(parser, cls=Gate, section="door")
    arguments = parser.parse_args(["--width", "300"])
    with pytest.raises(WrongUsage, match="width must be at most 200, received 300"):
        load_settings(Gate, section="door", arguments=arguments, environ={})
    environ, nothing = {"RIDGELINE_DOOR_WIDTH": "300"}, parser.parse_args([])
    with pytest.raises(InvalidInput, match="received 300") as error:
        load_settings(Gate, section="door", arguments=nothing, environ=environ)
    assert not isinstance(error.value, WrongUsage)


def test_a_variable_of_the_wrong_type_is_named():
    with pytest.raises(InvalidInput, match="RIDGELINE_DOOR_WIDTH must be a whole number"):
        load(environ={"RIDGELINE_DOOR_WIDTH": "wide"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[door]\nheight = 3",
            "unknown key 'height'; known are colour, key, open, sign",
        ),
        ('[door]\nwidth = "90"', "width must be a whole number, received '90'"),
        ("[door]\nwidth = true", "width must be a whole number, received True"),
        ("[door", "is not valid TOML"),
        ("door = 3", "door must be a table, received 3"),
    ],
)
def test_a_wrong_file_is_told_with_its_name_and_key(tmp_path, text, told):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as error:
        load("--config", str(path))
    assert told in str(error.value)
    assert "wrong.toml" in str(error.value)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="there is no file"):
        load("--config", str(tmp_path / "none.toml"))


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory"):
        load("--config", str(tmp_path))


@dataclass(frozen=True)
class Window:
    panes: int
    sizes: tuple[float, ...] = ()
    door: Door = field(default_factory=Door)


def test_a_table_fills_nested_tables_and_lists():
    window = from_table(
        Window, {"panes": 2, "sizes": [1, 2.5], "door": {"width": 7}}, source="house.toml"
    )
    assert window == Window(panes=2, sizes=(1.0, 2.5), door=Door(width=7))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, "house.toml: missing 'panes'"),
        ({"panes": 2, "door": {"colour": 3}}, "house.toml: door: colour must be a text"),
        ({"panes": 2, "sizes": ["x"]}, "house.toml: sizes must be a number, received 'x'"),
        ({"panes": 2, "door": 3}, "house.toml: door must be a table (Door), received 3"),
    ],
)
def test_a_wrong_table_is_told_with_its_source(table, told):
    with pytest.raises(InvalidInput) as error:
        from_table(Window, table, source="house.toml")
    assert told in str(error.value)


def test_every_setting_is_described_by_its_flag():
    parser = argparse.ArgumentParser()
    add_settings(parser, cls=Door, section="door")
    text = parser.format_help()
    assert "--width WIDTH" in text
    assert "in centimetres (default: 80)" in text
    assert "(default: false)" in text
    assert "RIDGELINE_DOOR_<NAME>" in text
