"""The prediction tasks of the benchmark, by their names on the command line."""

from typing import Annotated

from tasks.decompensation.task import TASK as DECOMPENSATION
from tasks.in_hospital_mortality.task import TASK as IN_HOSPITAL_MORTALITY
from tasks.length_of_stay.task import TASK as LENGTH_OF_STAY
from tasks.phenotyping.task import TASK as PHENOTYPING
from tasks.radiology.task import TASK as RADIOLOGY
from tasks.readmission.task import TASK as READMISSION
from tasks.task import Task
from utils.choices import look_up, one_of

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        PHENOTYPING,
        IN_HOSPITAL_MORTALITY,
        DECOMPENSATION,
        LENGTH_OF_STAY,
        RADIOLOGY,
        READMISSION,
    )
}

TaskName = Annotated[str, one_of(TASKS)]


def get_task(name: str) -> Task:
    """Return a task by its name; if there is none, raise ValueError with the most similar name."""
    return look_up(TASKS, name, "task")
