"""Names of things out of WordNet's format."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tools.words import main, meanings, texts

LINES = (
    "  1 This software and database is being provided to you under the following license.\n",
    "02738535 06 n 02 armchair 0 easy_chair 1 000 | chair with a support on each side for arms; 'x'\n",
    "09044862 15 n 01 United_States 0 000 | North American republic\n",
    "11669921 20 n 01 flower 0 000 | a plant cultivated for its blooms\n",
    "12651229 20 n 01 Rosa 0 000 | large genus of erect shrubs\n",
)


def test_a_meaning_has_its_file_names_and_definition() -> None:
    armchair, *others = meanings(iter(LINES))
    assert (armchair.file, armchair.names) == ("06", ("armchair", "easy chair"))
    assert armchair.definition == "chair with a support on each side for arms"
    assert len(others) == 3


def test_things_are_listed_with_and_without_colors_and_names_of_their_own_are_left_out() -> None:
    listed = list(texts(meanings(iter(LINES)), Random(0)))
    assert "armchair: chair with a support on each side for arms" in listed
    assert {"armchair", "easy chair", "flower"} <= set(listed)
    assert sum(text.endswith(" easy chair") for text in listed) == 3
    assert sum(text.endswith(" flower") for text in listed) == 1
    assert not [text for text in listed if "rosa" in text or "united" in text]


def test_the_command_writes_each_text_once_and_the_same_twice(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text("".join((*LINES, *LINES)), encoding="utf-8")
    for name in ("first.txt", "second.txt"):
        main(["--nouns", str(tmp_path / "data.noun"), "--output", str(tmp_path / name)])
    first = (tmp_path / "first.txt").read_text(encoding="utf-8").splitlines()
    assert first == (tmp_path / "second.txt").read_text(encoding="utf-8").splitlines()
    assert len(first) == len(set(first)) > 10
