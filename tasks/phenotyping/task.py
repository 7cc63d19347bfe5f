"""Clinical conditions: which of 25 groups of diagnoses are among the admission's ICD codes?"""

import pandas as pd

from datasets.conditions import conditions
from tasks.task import Task

CONDITIONS = tuple(condition.title for condition in conditions())


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample for each stay with an event; the model reads all of the stay."""
    usable = stays[stays["first_event_hours"].notna()]
    hours = usable["los_hours"]
    window = {"stay_row": usable.index, "end_hours": hours, "period_length": hours}
    return pd.DataFrame(window).join(usable[list(CONDITIONS)]).reset_index(drop=True)


GROUPS = {
    group: tuple(c.title for c in conditions() if c.group == group) for group in ("acute", "mixed", "chronic")
}
TASK = Task("phenotyping", "multilabel", CONDITIONS, "auroc", 2, samples, groups=GROUPS)
