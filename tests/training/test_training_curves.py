"""The picture of all learning curves: a panel for each run that has one, the same each time."""

import json
from pathlib import Path

import pytest

from training.curves import main


def written(folder: Path, name: str, *, losses: list[float | None]) -> None:
    (folder / name).mkdir(parents=True)
    curve = [
        {"epoch": epoch, "loss": loss, "val_loss": loss}
        for epoch, loss in enumerate(losses, start=1)
    ]
    report = {"model": name, "seed": 7, "curve": curve, "measures": {"mean_iou": 0.5, "x": None}}
    (folder / name / "training.json").write_text(json.dumps(report), encoding="utf-8")


def test_each_run_with_a_curve_has_a_panel_and_the_picture_is_the_same_each_time(
    tmp_path: Path,
) -> None:
    for name in ("a", "b", "c", "d"):
        written(tmp_path / "runs", name, losses=[2.0, 0.5, None, 0.1])
    written(tmp_path / "runs", "filter", losses=[])
    pictures = []
    for number in range(2):
        path = tmp_path / f"docs/{number}.svg"
        assert main([str(tmp_path / "runs"), "--output", str(path)]) == 0
        pictures.append(path.read_text(encoding="utf-8"))
    assert pictures[0] == pictures[1]
    assert sum(f'<g id="axes_{number}">' in pictures[0] for number in range(1, 10)) == 4


@pytest.mark.parametrize("content", [None, "{", "[]", '{"model": "a"}'])
def test_what_holds_no_curve_is_named(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a/training.json").write_text(content, encoding="utf-8")
    assert main([str(tmp_path), "--output", str(tmp_path / "x.svg")]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()
