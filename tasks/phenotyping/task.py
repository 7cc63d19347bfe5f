"""Clinical conditions: which of 25 groups of diagnoses are among the admission's ICD codes?"""

from __future__ import annotations

from datasets.conditions import conditions
from tasks.task import Rules, Task, has_event, hours_alive, passes
from utils.lazy_pandas import pd

CONDITIONS = tuple(condition.title for condition in conditions())


def rules(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> Rules:
    """Return what a stay needs: an event, under `corrected` before death."""
    return {"an event": has_event(stays, hours_alive(stays, protocol))}


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample per stay with an event: the whole stay, under `corrected` until death."""
    usable = stays[passes(rules(stays, images, protocol))]
    end = hours_alive(stays, protocol)[usable.index]
    window = {"stay_row": usable.index, "end_hours": end, "period_length": end}
    return pd.DataFrame(window).join(usable[list(CONDITIONS)]).reset_index(drop=True)


GROUPS = {
    group: tuple(c.title for c in conditions() if c.group == group) for group in ("acute", "mixed", "chronic")
}
TITLES = ("not among the diagnoses", "among the diagnoses of the admission")
TASK = Task(
    "phenotyping",
    "multilabel",
    CONDITIONS,
    "auroc",
    2,
    samples,
    groups=GROUPS,
    rules=rules,
    class_titles=TITLES,
)
