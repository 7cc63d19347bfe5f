"""What tells rows of a table apart, in words: settings that differ, and the classifiers of evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from evaluation.results import Recorded, read_recorded
from evaluation.seeds import CONTEXT, METHOD

CLASSIFIER = "classifier"  # column with a number for what an evaluation tested, "" where a training tested
SOURCES = ("load_state_ehr", "load_state_cxr")  # settings that name the checkpoints of encoders
NO_FLAGS = (CLASSIFIER, "resumed after")  # settings that are recorded, and are no flag


class Notes(NamedTuple):
    """A table whose cells have notes, and these: a line for each."""

    table: pd.DataFrame
    lines: list[str]


def number_classifiers(table: pd.DataFrame) -> Notes:
    """Add a column CLASSIFIER, with a number for each value of `classifiers`, and say what they are.

    `classifiers` names the checkpoints that a row's evaluations tested, "" for trainings. If all rows
    tested the same, the line says so.
    """
    names = [name for name in table["classifiers"].unique() if name]
    if len(table["classifiers"].unique()) < 2:
        return Notes(table.assign(**{CLASSIFIER: ""}), [f"all rows: tests of {name}" for name in names])
    numbers = {name: str(number) for number, name in enumerate(names, 1)}
    column = table["classifiers"].map(numbers).fillna("")
    lines = [f"{CLASSIFIER} {number}: {name}" for name, number in numbers.items()]
    return Notes(table.assign(**{CLASSIFIER: column}), lines)


def explain_settings(table: pd.DataFrame, rows: pd.DataFrame, shown: Sequence[str]) -> Notes:
    """Say what the hashes in the column `settings` are: what differs from rows that look alike without it.

    `rows` are the result rows of the table, and `shown` its columns. The cell of a row that other columns
    tell from all others becomes empty, so that each hash that is shown has its line.
    """
    if "settings" not in shown:
        return Notes(table, [])
    telling = (*METHOD, *CONTEXT[:-1], CLASSIFIER, "classifiers")
    others = [name for name in telling if name in shown]
    recorded = _recorded(rows)
    lines: dict[str, None] = {}
    explained = set()
    for _, alike in table[table["settings"] != ""].groupby(others, sort=False, dropna=False):
        hashes = list(alike["settings"].unique())
        if len(hashes) > 1:
            explained |= set(hashes)
            texts = differing_settings([recorded[name] for name in hashes])
            lines |= {
                f"settings {name}: {text or 'not recorded'}": None
                for name, text in zip(hashes, texts, strict=True)
            }
    cells = table["settings"].where(table["settings"].isin(list(explained)), "")
    return Notes(table.assign(settings=cells), list(lines))


def _recorded(rows: pd.DataFrame) -> dict[str, Recorded]:
    """Return what is recorded of the settings of rows, by their hash."""
    named = rows[["settings", "source"]].drop_duplicates("settings").itertuples(index=False)
    return {name: read_recorded(Path(source).parent, name) for name, source in named}


def differing_settings(recorded: Sequence[Recorded]) -> list[str]:
    """Return, for each of several settings, those that are not the same in all of them, as flags.

    >>> slow, fast = ({"optim.lr": lr, "optim.epochs": 9} for lr in (0.1, 0.2))
    >>> differing_settings([Recorded(slow), Recorded(fast)])
    ['--lr 0.1', '--lr 0.2']
    """
    is_one_source = all(
        all(name in one.settings for name in SOURCES) and len({one.settings[name] for name in SOURCES}) == 1
        for one in recorded
    )
    named = [dict(_flags(one, is_one_source)) for one in recorded]
    names = dict.fromkeys(name for one in named for name in one)
    differing = [name for name in names if len({one.get(name, "") for one in named}) > 1]
    return [_flag_text(one, differing) for one in named]


def _flag_text(flags: Mapping[str, str], names: Sequence[str]) -> str:
    """Return some flags with their values; those that are not set are named only if none is."""
    said = [f"{name} {flags[name]}" for name in names if flags.get(name)]
    return ", ".join(said or [f"no {name}" for name in names if flags])


def _flags(recorded: Recorded, is_one_source: bool) -> Iterator[tuple[str, str]]:
    """Yield the settings of a run as users write them: flag and value, "" for one that is not set.

    The checkpoint of both encoders is one flag if `is_one_source`, and that of an evaluation is its
    classifier. Weights from elsewhere have the name of their file.
    """
    for path, value in recorded.settings.items():
        if path not in SOURCES:
            yield path if path in NO_FLAGS else f"--{path.rpartition('.')[2]}", _text(value)
        elif CLASSIFIER in recorded.settings:
            continue
        elif path in recorded.files:
            yield "--cxr_weights", f"{recorded.files[path]} ({value})"
        else:
            yield "--load_state" if is_one_source else f"--{path}", _text(value)


def _text(value: object) -> str:
    """Return a value as on a command line.

    >>> _text([0.1, 0]), _text(None), _text(False)
    ('0.1 0', '', 'False')
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
