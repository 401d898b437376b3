"""Pieces of a report's page; all text of a catalogue is escaped here and nowhere else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

MAX_TEXT = 160
"""Characters of a catalogue's text that are shown."""


def text(value: object, length: int = MAX_TEXT) -> str:
    """Return a value as text of the page, shortened."""
    words = " ".join(str(value).split())
    return html.escape(words if len(words) <= length else f"{words[: length - 1]}\u2026")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1, chosen: Sequence[bool] = ()) -> str:
    """Return a table whose cells are pieces of the page already.

    Args:
        header: its columns.
        rows: its cells.
        words: so many columns from the left hold words, the others numbers.
        chosen: which rows are marked; none marks none.
    """

    def cells(values: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=w' if number < words else ''}>{value}</{tag}>" for number, value in enumerate(values)
        )

    marked = list(chosen) or [False] * len(rows)
    body = "".join(
        f"<tr{' class=chosen' if is_marked else ''}>{cells(row, 'td')}</tr>"
        for row, is_marked in zip(rows, marked, strict=True)
    )
    return f"<div class=wide><table><tr>{cells(header, 'th')}</tr>{body}</table></div>"


def interval(estimate: Mapping[str, float], digits: int = 3) -> str:
    """Return a mean with its interval below it."""
    low, high = (f"{estimate[end]:.{digits}f}" for end in ("low", "high"))
    return f"{estimate['mean']:.{digits}f}<br><small>{low}&ndash;{high}</small>"


def section(name: str, title: str, *parts: str) -> str:
    """Return a section that the page's list of contents can point to."""
    return f"<section id={name}><h2>{title}</h2>{''.join(parts)}</section>"


def picture(uri: str | None, name: str) -> str:
    """Return a product's picture, or a place that says there is none."""
    return f"<img alt='{text(name, 60)}' src='{uri}'>" if uri else "<div class=none>no picture</div>"


def product_card(shown: Sequence[tuple[str, str | None, str, str]], note: str = "") -> str:
    """Return products side by side.

    Args:
        shown: of each what it is here, its picture's data URI, its title, and a remark.
        note: below them, a piece of the page.
    """
    sides = "".join(
        f"<div><small>{text(role)}</small>{picture(uri, title)}<p>{text(title, 90)}</p>"
        f"<small>{text(remark)}</small></div>"
        for role, uri, title, remark in shown
    )
    return f"<div class=card><div class=pair>{sides}</div>{f'<p>{note}</p>' if note else ''}</div>"
