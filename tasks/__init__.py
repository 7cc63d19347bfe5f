"""What is predicted: the tasks of the benchmark by the name that the command line uses."""

from tasks.decompensation.task import TASK as DECOMPENSATION
from tasks.in_hospital_mortality.task import TASK as IN_HOSPITAL_MORTALITY
from tasks.length_of_stay.task import TASK as LENGTH_OF_STAY
from tasks.phenotyping.task import TASK as PHENOTYPING
from tasks.radiology.task import TASK as RADIOLOGY
from tasks.readmission.task import TASK as READMISSION
from tasks.task import Task

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
