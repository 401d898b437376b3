"""What a job says of its progress where there is no terminal, and how it writes numbers."""

from __future__ import annotations

import pytest

from product_retrieval.progress import Progress, format_duration, format_table


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (60, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
        (float("inf"), "unknown time"),
    ],
)
def test_duration_is_written_as_people_say_it(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_table_aligns_its_values() -> None:
    assert format_table([("products", "5"), ("time", "1 s")]) == "  products  5\n  time      1 s"
    assert format_table([]) == ""


def test_last_unit_is_shown_and_those_just_before_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 3, unit="products") as progress:
        progress.advance(1)
        progress.advance(1)
        assert capsys.readouterr().err == ""
        progress.advance(1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("embed: 3 of 3 products, ")
    assert line.endswith(", 0.0 s left")


def test_what_was_done_before_counts_for_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("embed", 1000, unit="products", done=990) as progress:
        progress.advance(10)
    assert capsys.readouterr().err.startswith("embed: 1,000 of 1,000 products, ")


def test_error_inside_is_not_swallowed() -> None:
    with pytest.raises(ValueError, match="odd"), Progress("embed", 1, unit="products"):
        raise ValueError("odd")
