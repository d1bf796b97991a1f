"""The table of exported networks: measured by the commands of users, one row each."""

import subprocess

from export import zoo_table

PAGE = """# The zoo

## Exported

What the columns mean.

## What is served

## Networks

| network | multiply-adds | parameters |
|---|---|---|
| lenet5 | 416,520 | 61,706 |
| perceptron | 10,240 | 10,250 |
"""


def test_a_network_is_exported_as_users_do_and_its_row_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert zoo_table.main(["perceptron", "--page", str(page)]) == 0
    table = page.read_text().partition("## What is served")[0]
    (row,) = (line for line in table.splitlines() if line.startswith("| perceptron | "))
    network, error, multiply_adds, parameters, opset, *_ = row.strip("| ").split(" | ")
    assert (network, multiply_adds, parameters, opset) == ("perceptron", "10,240", "10,250", "18")
    assert 0 <= float(error) <= 1e-5
    assert capsys.readouterr().out.startswith("perceptron, ")
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_what_cannot_be_exported_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(PAGE)

    def measured(network):
        if network == "lenet5":
            raise subprocess.CalledProcessError(1, "ridgeline", stderr="it is broken")
        return (network, *["done"] * 7)

    monkeypatch.setattr(zoo_table, "measured", measured)
    assert zoo_table.main(["--page", str(page)]) == 1
    assert "| perceptron | done | done" in page.read_text()
    assert "lenet5: it is broken" in capsys.readouterr().err
