"""docs/outputs.md explains every column that a run writes."""

import re
from pathlib import Path

import pytest

from evaluation import predictions, results
from training.loop import NOT_MONITORS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "outputs.md"


@pytest.mark.parametrize(
    ("title", "columns"),
    [
        ("`results/<task>.csv`", results.COLUMNS),
        ("`runs/NAME/log.csv`", (*NOT_MONITORS, "train_loss", "val_loss", "accuracy", "alignment")),
        ("`runs/NAME/predictions_<split>.csv`", predictions.COLUMNS),
    ],
)
def test_every_column_is_explained_where_its_file_is(title: str, columns: tuple[str, ...]) -> None:
    (section,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(title)]
    assert set(columns) <= set(re.findall(r"`(\w+)`", section))
