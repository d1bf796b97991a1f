"""Tables in pages: rows are known by their first cell, and stand in the order of names."""

import pytest

from export.page_table import PageTable

TABLE = PageTable("## Exported", ("network", "what"))
PAGE = """# The zoo

See "## Exported" below.

## Exported

What the columns mean.

## What is served

## Networks

| network | parameters |
|---|---|
| lenet5 | 61,706 |
"""


def test_rows_stand_in_the_order_of_names_and_replace_older_ones():
    page = TABLE.with_row(PAGE, ("mlp", "old"))
    page = TABLE.with_row(page, ("lenet5", "x"))
    page = TABLE.with_row(page, ("mlp", "new"))
    part = page.partition("\n## Exported")[2].partition("## What")[0]
    assert part.count("| network |") == 1
    assert part.strip().startswith("What the columns mean.")
    assert part.strip().endswith("| lenet5 | x |\n| mlp | new |")
    assert page.endswith(PAGE.partition("## What is served")[2])


def test_what_stands_behind_a_table_stays_behind_it():
    page = TABLE.with_row(PAGE, ("mlp", "old")).replace("| old |\n", "| old |\n\nSo it is.\n")
    part = TABLE.with_row(page, ("mlp", "new")).partition("## What")[0]
    assert part.endswith("| mlp | new |\n\nSo it is.\n\n")


def test_a_page_without_the_heading_and_a_row_that_does_not_fit_are_refused():
    with pytest.raises(ValueError, match="no heading '## Exported'"):
        TABLE.with_row("# Other", ("mlp", "new"))
    with pytest.raises(ValueError, match=r"a row needs 2 cells, received \['mlp'\]"):
        TABLE.with_row(PAGE, ("mlp",))
