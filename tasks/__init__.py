"""The prediction tasks of the benchmark, by their names on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from utils.choices import look_up, one_of
from utils.lazy import LazyTable, lazy_exports

if TYPE_CHECKING:
    from tasks.task import Task as Task

__getattr__ = lazy_exports(__name__, {"Task": "task"})

TASKS: Mapping[str, Task] = LazyTable(
    {
        "phenotyping": "tasks.phenotyping.task:TASK",
        "in-hospital-mortality": "tasks.in_hospital_mortality.task:TASK",
        "decompensation": "tasks.decompensation.task:TASK",
        "length-of-stay": "tasks.length_of_stay.task:TASK",
        "radiology": "tasks.radiology.task:TASK",
        "readmission": "tasks.readmission.task:TASK",
    }
)

TaskName = Annotated[str, one_of(TASKS)]


def get_task(name: str) -> Task:
    """Return a task by its name; if there is none, raise ValueError with the most similar name."""
    return look_up(TASKS, name, "task")
