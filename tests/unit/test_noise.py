"""Each kind of title noise does what its label says, on titles that can be checked by eye."""

from difflib import SequenceMatcher
from random import Random

import pytest

from tools import noise

TITLE = "Navy blue double bed, 140 x 200 cm"
NAMES = (("en", "Bed"), ("de", "Bett"), ("fr", "Lit"))


def noisy(kind, title=TITLE, color="navy blue", names=NAMES, seed=0):
    return noise.apply(kind, title, color=color, names=names, rng=Random(seed))


def test_missing_color_leaves_the_rest_of_the_title():
    assert noisy("no_color") == "Double bed, 140 x 200 cm"


def test_wrong_color_is_a_color_of_the_shop_but_never_the_right_one():
    titles = {noisy("wrong_color", seed=seed) for seed in range(200)}
    others = [color for color in noise.COLORS if color != "navy blue"]
    assert titles == {f"{color.capitalize()} double bed, 140 x 200 cm" for color in others}


def test_capitals():
    assert noisy("capitals") == "NAVY BLUE DOUBLE BED, 140 X 200 CM"


def test_other_language_is_one_of_the_products_own_names_and_not_english():
    assert {noisy("other_language", seed=seed) for seed in range(50)} == {"Bett", "Lit"}


def test_truncated_is_a_beginning_of_the_title():
    for seed in range(50):
        title = noisy("truncated", seed=seed)
        assert TITLE.startswith(title)
        assert 4 <= len(title) < 0.85 * len(TITLE)


def test_code_keeps_the_title_whole_and_adds_an_article_number():
    for seed in range(50):
        before, found, after = noisy("code", seed=seed).partition(TITLE)
        assert found == TITLE
        assert any(letter.isdigit() for letter in before + after)


def test_html_has_tags_around_the_escaped_title():
    title = noisy("html", title="Bed & breakfast tray", color=None)
    assert title.startswith("<")
    assert "Bed&nbsp;&amp; breakfast tray</" in title


def test_typos_change_a_few_letters_and_no_digit():
    for seed in range(200):
        title = noisy("typo", seed=seed)
        assert title != TITLE
        assert [letter for letter in title if letter.isdigit()] == list("140200")
        assert SequenceMatcher(None, title, TITLE).ratio() > 0.85


def test_every_possible_kind_changes_the_title_for_every_seed():
    for title, color, names in ((TITLE, "navy blue", NAMES), ("TV", None, ()), ("Oven", None, (("de", "Oven"),))):
        for kind in noise.possible_kinds(title, color=color, names=names):
            assert all(noisy(kind, title, color, names, seed) != title for seed in range(100)), (kind, title)


def test_same_seed_same_noise():
    assert [noisy(kind, seed=7) for kind in noise.KINDS] == [noisy(kind, seed=7) for kind in noise.KINDS]


def test_what_cannot_happen_is_not_offered_and_is_refused():
    assert noise.possible_kinds("TV", color=None, names=(("en", "TV"),)) == ("html", "code")
    with pytest.raises(ValueError, match="'no_color' cannot happen to 'Bed' with colour None"):
        noisy("no_color", title="Bed", color=None)
    with pytest.raises(ValueError, match="other_language"):
        noisy("other_language", names=(("en", "Bed"),))


def test_color_counts_only_at_the_beginning_of_the_title():
    assert "no_color" not in noise.possible_kinds("Bed in red", color="red", names=())
