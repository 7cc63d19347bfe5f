"""Settings that name an entry of a table: choices in the help, and an error with the most similar name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import tyro

from utils.config import did_you_mean

T = TypeVar("T")


def one_of(names: Iterable[str]) -> object:
    """Return an annotation for a text setting, by which its help shows the choices.

    >>> from typing import Annotated
    >>> Color = Annotated[str, one_of(["red", "blue"])]
    """
    return tyro.conf.arg(metavar="{" + ",".join(names) + "}")


def look_up(table: Mapping[str, T], name: str, flag: str) -> T:
    """Return the entry of a table.

    Raises:
        ValueError: There is none; the message gives the flag and the most similar name.

    >>> look_up({"ehr": 1, "cxr": 2}, "cxr", "fusion")
    2
    """
    if name not in table:
        raise ValueError(f"unknown --{flag} {name}{did_you_mean(name, list(table))}")
    return table[name]
