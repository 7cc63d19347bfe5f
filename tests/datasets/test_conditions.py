"""Codes to conditions."""

import polars as pl
import pytest

from datasets.cohort import condition_labels
from datasets.conditions import conditions, groups_of


def test_titles_are_in_alphabetical_order_and_groups_are_complete() -> None:
    titles = [c.title for c in conditions()]
    assert titles == sorted(titles) and len(titles) == 25
    assert sorted(c.group for c in conditions()).count("mixed") == 5


@pytest.mark.parametrize(
    ("code", "version", "medmod", "corrected"),
    [
        ("41071", 9, {"100"}, {"100"}),
        ("I214", 10, {"100"}, {"100"}),
        ("I219", 10, set(), {"100"}),  # younger than the mapping: as its siblings
        ("I10", 10, {"98"}, {"98"}),
        ("E785", 10, {"53"}, {"53"}),
        ("E7801", 10, {"53"}, {"53"}),
        ("J80", 10, set(), {"131"}),
        ("E1122", 10, set(), {"50"}),
        ("Z999", 10, set(), set()),
    ],
)
def test_codes(code: str, version: int, medmod: set[str], corrected: set[str]) -> None:
    benchmark = {c.ccs for c in conditions()}
    assert groups_of(code, version, "medmod") & benchmark == medmod
    assert groups_of(code, version, "corrected") & benchmark == corrected


def test_a_code_is_matched_with_its_version() -> None:
    both = pl.DataFrame({"hadm_id": [1, 2], "icd_code": ["E8120", "E8120"], "icd_version": [9, 10]})
    assert groups_of("E8120", 9, "medmod") != groups_of("E8120", 10, "corrected")
    labels = condition_labels(both, [1, 2, 3], "corrected")
    assert labels["hadm_id"].to_list() == [1, 2, 3]
    assert sum(labels.row(2)[1:]) == 0
