"""All kinds of faults of the fuzzer, by group and name."""

from tests.fuzz import checkpoints, exports, images, meds, settings, stores, tables
from tests.fuzz.cases import Fault

FAULTS: dict[tuple[str, str], Fault] = {
    (fault.group, fault.name): fault
    for group in (tables, exports, images, meds, checkpoints, stores, settings)
    for fault in group.faults()
}
