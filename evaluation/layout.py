"""How tables look: which columns they need, cells with intervals, and text, Markdown or LaTeX (booktabs)."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import pandas as pd

from evaluation.results import NO_ENCODER

Style = Literal["text", "markdown", "latex"]
Mark = Literal["best", "like best"]
DAGGER = "†"
# Values of columns that go without saying.
USUAL = {"label_fraction": 1.0, "ehr_encoder": "lstm", "cxr_weights": "random"}
LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "²": r"$^2$", DAGGER: r"$^\dagger$",
}  # fmt: skip


class Page(NamedTuple):
    """A table with a title, what the data are, and notes below it; `marks` are by row and column."""

    title: str
    notice: str
    table: pd.DataFrame  # text and whole numbers
    notes: Sequence[str] = ()
    marks: Mapping[tuple[int, str], Mark] = {}


def columns_that_tell(
    table: pd.DataFrame,
    always: Sequence[str],
    varying: Sequence[str],
    details: Sequence[str],
    outcomes: Sequence[str] = (),
) -> list[str]:
    """Return the columns to show: `always`, those of `varying` with several values, and useful `details`.

    NO_ENCODER is no value. Details are added, in order, while they tell rows apart that look alike.
    `outcomes` with several values are shown too, but they tell no rows apart: a number of seeds says nothing
    of a method.

    >>> table = pd.DataFrame({"a": [1, 1], "b": [2, 2], "c": [3, 4], "n": [5, 6]})
    >>> columns_that_tell(table, ["a"], ["b"], ["c"], ["n"])
    ['a', 'n', 'c']
    """
    told = [*always, *(name for name in varying if len(_values(table[name])) > 1)]
    shown = [*told, *(name for name in outcomes if len(_values(table[name])) > 1)]
    for name in details:
        alike = table[table.duplicated(told, keep=False)]
        if len(alike.drop_duplicates([*told, name])) > len(alike.drop_duplicates(told)):
            told.append(name)
            shown.append(name)
    return shown


def common_values(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return a line with the columns of a table that have one value, but not the usual; [] if there are none.

    What some rows lack (NO_ENCODER) has a line of its own.

    >>> common_values(pd.DataFrame({"a": [1, 1], "b": [2, 3], "c": ["tcn", "none"]}), ["a", "b", "c"])
    ['all rows: a 1', 'where there is one: c tcn']
    """
    lines: dict[str, list[str]] = {"all rows": [], "where there is one": []}
    for name in names:
        values = _values(table[name])
        if len(values) == 1 and not pd.isna(values[0]) and values[0] not in ("", USUAL.get(name)):
            is_lacking = NO_ENCODER in set(table[name])
            lines["where there is one" if is_lacking else "all rows"].append(f"{name} {values[0]}")
    return [f"{rows}: {', '.join(said)}" for rows, said in lines.items() if said]


def _values(column: pd.Series) -> list[object]:
    """Return the different values of a column, but NO_ENCODER; missing ones count as one."""
    return [value for value in column.astype(object).unique() if pd.isna(value) or value != NO_ENCODER]


def interval(low: float, high: float, digits: int) -> str:
    """Return an interval as text, "" if there is none.

    >>> interval(0.694, 0.741, 2), interval(math.nan, math.nan, 2)
    ('0.69 to 0.74', '')
    """
    return "" if math.isnan(low) or math.isnan(high) else f"{low:.{digits}f} to {high:.{digits}f}"


def cell(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """Return a score with its interval, if there is one; "" for no score.

    >>> cell(0.7161, 0.694, 0.741), cell(0.7161), cell(math.nan)
    ('0.716 (0.69 to 0.74)', '0.716', '')
    """
    if math.isnan(value):
        return ""
    ends = interval(low, high, 2)
    return f"{value:.3f} ({ends})" if ends else f"{value:.3f}"


def render(page: Page, style: Style) -> str:
    """Return a page in a style. LaTeX has the notes inside the table, which is copied alone."""
    rows = [
        [_marked(str(value), page.marks.get((number, name)), style) for name, value in row.items()]
        for number, row in enumerate(page.table.to_dict("records"))
    ]
    header = [_escaped(str(name), style) for name in page.table]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in page.table.dtypes]
    if style == "latex":
        return _latex(page, header, rows, numeric)
    lines = _aligned(header, rows, numeric, style)
    if style == "markdown":
        notes = [f"- {_escaped(note, style)}" for note in page.notes]
        return "\n".join([f"{page.title}: **{page.notice}**", "", *lines, *([""] if notes else []), *notes])
    return "\n".join([f"{page.title}: {page.notice}", *lines, *page.notes])


def _marked(text: str, mark: Mark | None, style: Style) -> str:
    text = _escaped(text, style)
    if mark == "best":
        return {"text": f"{text} *", "markdown": f"**{text}**", "latex": rf"\textbf{{{text}}}"}[style]
    return text + _escaped(DAGGER if style == "latex" else f" {DAGGER}", style) if mark else text


def _escaped(text: str, style: Style) -> str:
    if style == "latex":
        escaped = "".join(LATEX_CHARACTERS.get(character, character) for character in text)
        return escaped.replace("--", "-{}-")  # two hyphens would become one dash
    return text.replace("|", r"\|") if style == "markdown" else text


def _aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool], style: Style
) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(cells, widths, numeric, strict=True)
        ]
        return f"| {' | '.join(padded)} |" if style == "markdown" else " ".join(padded).rstrip()

    lines = [line(cells) for cells in (header, *rows)]
    if style == "markdown":
        rule = [
            "-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, numeric, strict=True)
        ]
        lines.insert(1, f"| {' | '.join(rule)} |")
    return lines


def _latex(page: Page, header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    def wide(text: str) -> str:
        content = rf"\footnotesize {_escaped(text, 'latex')}"
        return rf"\multicolumn{{{len(header)}}}{{p{{0.95\linewidth}}}}{{{content}}} \\"

    def line(cells: Sequence[str]) -> str:
        return rf"{' & '.join(cells)} \\"

    columns = "".join("r" if right else "l" for right in numeric)
    said = [wide(text) for text in (f"{page.title}: {page.notice}", *page.notes)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(header), r"\midrule", *map(line, rows),
            r"\midrule", *said, r"\bottomrule", r"\end{tabular}",
        ]
    )  # fmt: skip
