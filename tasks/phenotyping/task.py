"""Clinical conditions: which of 25 groups of diagnoses are among the admission's ICD codes?"""

import pandas as pd

from datasets.conditions import conditions
from tasks.task import Task

CONDITIONS = tuple(condition.title for condition in conditions())


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample for each stay with an event; the model reads all of the stay."""
    usable = stays[stays["first_event_hours"].notna()]
    window = {
        "stay_row": usable.index,
        "end_hours": usable["los_hours"],
        "period_length": usable["los_hours"],
    }
    return pd.DataFrame(window).join(usable[list(CONDITIONS)]).reset_index(drop=True)


TASK = Task(
    name="phenotyping",
    kind="multilabel",
    labels=CONDITIONS,
    monitor="auroc",
    classes=2,
    samples=samples,
    groups={
        group: tuple(c.title for c in conditions() if c.group == group)
        for group in ("acute", "mixed", "chronic")
    },
)
