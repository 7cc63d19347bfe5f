"""Which codes of a MEDS dataset mean what: a YAML file that a user can edit."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from datasets.events.cleaning import item_map
from datasets.schema import RESOURCES, variables
from utils.yaml_files import load_yaml

SHIPPED = ("meds_mimic_iv_storetime.yaml", "meds_mimic_iv_charttime.yaml")
ROLES = (
    "sex", "birth", "death", "hospital_admission", "hospital_discharge", "icu_admission", "icu_discharge",
    "diagnosis", "race",
)  # fmt: skip
NEEDED = ("birth", "hospital_admission", "hospital_discharge", "icu_admission", "icu_discharge")
COLUMNS = ("hadm_id", "stay_id", "race")
UNKNOWN = ("", "UNK")  # in place of a missing part of a code


class Meaning(NamedTuple):
    """What a code says: a role in the cohort with a value, or an observation (index in `readings`)."""

    role: str = ""
    value: str | None = None
    version: int | None = None
    reading: int = -1


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Reading:
    """A code that is read as a MIMIC item: the value is factor * number + offset, or a text, by `texts`."""

    code: str
    item: int
    factor: float = 1.0
    offset: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class CodeMapping:
    """Patterns for whole codes: `codes` by role, and those of observations.

    `items` matches codes that hold the number of a MIMIC item (group `item`); `variables` lists other codes
    by variable. `columns` names the columns beside the standard's. `recognized_by` matches a code that only
    datasets of this kind have.
    """

    name: str
    lab_time: Literal["charttime", "storetime"]
    codes: dict[str, str]
    columns: dict[str, str] = field(default_factory=dict)
    items: str = "(?!)"
    variables: dict[str, list[Reading]] = field(default_factory=dict)
    recognized_by: str = "(?!)"

    @property
    def fingerprint(self) -> str:
        """Return a hash of all that the mapping says."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @cached_property
    def readings(self) -> list[Reading]:
        """Return the readings of `variables`, and the plain ones of all items of the variables."""
        plain = [Reading("", item) for item in item_map("corrected")["itemid"]]
        plain += [Reading("", item) for item in item_map("medmod")["itemid"]]
        return [*(reading for readings in self.variables.values() for reading in readings), *plain]

    @cached_property
    def _plain(self) -> dict[int, int]:
        return {reading.item: index for index, reading in enumerate(self.readings) if not reading.code}

    def meaning(self, code: str) -> Meaning:
        """Return what a code means; the first pattern that matches decides."""
        for role, pattern in self.codes.items():
            if match := re.fullmatch(pattern, code):
                groups = match.groupdict()
                value, version = groups.get("value"), groups.get("version")
                return Meaning(role, None if value in UNKNOWN else value, int(version) if version else None)
        for index, reading in enumerate(self.readings):
            if reading.code and re.fullmatch(reading.code, code):
                return Meaning(reading=index)
        match = re.fullmatch(self.items, code)
        return Meaning(reading=self._plain.get(int(match["item"]), -1)) if match else Meaning()


def read_mapping(path: Path) -> CodeMapping:
    """Read a mapping.

    Raises:
        ValueError: A key is unknown or missing, or a pattern, a variable or an item does not fit.
    """
    try:
        mapping = TypeAdapter(CodeMapping).validate_python(load_yaml(path.read_bytes(), str(path)))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path}: {name}: {first['msg']}; compare with datasets/resources/{SHIPPED[0]}"
        ) from None
    if fault := _fault(mapping):
        raise ValueError(f"{path}: {fault}; compare with datasets/resources/{SHIPPED[0]}")
    return mapping


def _fault(mapping: CodeMapping) -> str:
    """Return what is wrong with a mapping, "" if nothing is."""
    if unknown := sorted(mapping.codes.keys() - {*ROLES}) + sorted(mapping.columns.keys() - {*COLUMNS}):
        return f"unknown key {unknown[0]}; codes: {', '.join(ROLES)}; columns: {', '.join(COLUMNS)}"
    if missing := [role for role in NEEDED if role not in mapping.codes]:
        return f"codes: {missing[0]} is missing"
    groups = {"items": "item", **{f"codes.{role}": "" for role in ROLES}, "codes.diagnosis": "version"}
    patterns = {f"codes.{role}": pattern for role, pattern in mapping.codes.items()}
    patterns |= {"items": mapping.items, "recognized_by": mapping.recognized_by}
    for name, readings in mapping.variables.items():
        patterns |= {f"variables.{name}": reading.code for reading in readings}
    for name, pattern in patterns.items():
        try:
            found = re.compile(pattern).groupindex
        except re.error as error:
            return f"{name}: {pattern!r} is no regular expression ({error})"
        if (group := groups.get(name)) and group not in found and pattern != "(?!)":
            return f"{name}: {pattern!r} has no group (?P<{group}>...)"
    index = {variable.name: number for number, variable in enumerate(variables())}
    owner = {
        item: v for p in ("corrected", "medmod") for item, v in item_map(p)["itemid", "variable"].iter_rows()
    }
    for name, readings in mapping.variables.items():
        if name not in index:
            return f"variables: there is no variable {name!r}"
        if wrong := [reading.item for reading in readings if owner.get(reading.item) != index[name]]:
            return f"variables.{name}: {wrong[0]} is none of its items in datasets/resources/variables.yaml"
    return ""


def find_mapping(codes: Iterable[Iterable[str]]) -> CodeMapping:
    """Return the shipped mapping that recognizes one of the codes, which come in parts.

    Raises:
        ValueError: None does.
    """
    shipped = [read_mapping(RESOURCES / name) for name in SHIPPED]
    for part in codes:
        for mapping in shipped:
            if any(re.fullmatch(mapping.recognized_by, code) for code in part):
                return mapping
    raise ValueError(
        f"the codes are not those of {' or '.join(m.name for m in shipped)}; write a mapping as docs/data.md "
        "says, and give it as --meds_mapping"
    )
