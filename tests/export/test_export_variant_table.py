"""The table of variants: what is refused stands in it as well."""

from export import variant_table

PAGE = "# The zoo\n\n## Lower precision\n\nWhat it is.\n\n## What is served\n"


def test_every_variant_has_a_row_though_it_cannot_be_made(artifact, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert variant_table.main([str(artifact), "--page", str(page)]) == 0
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines()[4:]]
    told = {row[0]: row[1:] for row in rows if row[0].startswith("classifier_")}
    assert told["classifier_int8"][2].startswith("no: int8 needs the artifact's calibration.npz")
    full, variant, published, *gains, size, of = told["classifier_fp16"]
    assert full.startswith("accuracy ")
    assert variant.startswith("accuracy ")
    assert published in ("yes", "no")
    assert all(float(gain.split()[0]) > 0 for gain in gains)
    assert float(size) <= float(of)
    assert "classifier_fp16, accuracy" in capsys.readouterr().out


def test_an_artifact_that_is_none_is_told_and_the_others_go_on(artifact, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    words = [str(tmp_path / "nothing"), str(artifact), "--page", str(page)]
    assert variant_table.main(words) == 1
    assert "is neither an artifact" in capsys.readouterr().err
    assert "| classifier_fp16 |" in page.read_text()
