"""Settings that name an entry of a table show the choices, and an unknown name suggests a known one."""

from dataclasses import dataclass
from typing import Annotated

import pytest

from utils.choices import look_up, one_of
from utils.config import parse

COLORS = {"red": 1, "blue": 2}


@dataclass(frozen=True)
class Config:
    """Paint something."""

    color: Annotated[str, one_of(COLORS)] = "red"
    """Color to paint it."""


def test_the_help_shows_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse(Config, ["--color", "blue"]) == Config("blue")
    with pytest.raises(SystemExit):
        parse(Config, ["--help"])
    assert "--color {red,blue}" in capsys.readouterr().out


def test_an_unknown_name_suggests_a_known_one() -> None:
    assert look_up(COLORS, "blue", "color") == 2
    with pytest.raises(ValueError, match=r"unknown --color bleu; did you mean blue\?"):
        look_up(COLORS, "bleu", "color")
