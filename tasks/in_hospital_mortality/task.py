"""In-hospital mortality: from the first 48 hours of a stay, does the patient die in hospital?"""

from __future__ import annotations

from tasks.task import Rules, Task, has_event, hours_alive, passes
from utils.lazy_pandas import pd

WINDOW_HOURS = 48.0


def rules(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> Rules:
    """Return what a stay needs: 48 hours (under `corrected`, alive), and an event in them."""
    return {
        "a length of 48 hours": hours_alive(stays, protocol) >= WINDOW_HOURS - 1e-6,
        "an event in the first 48 hours": has_event(stays, WINDOW_HOURS),
    }


def samples(stays: pd.DataFrame, images: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Return a sample per stay of 48 hours or more (under `corrected`, alive) that has an event in them."""
    usable = stays[passes(rules(stays, images, protocol))]
    window = {"stay_row": usable.index, "end_hours": WINDOW_HOURS, "period_length": 0}
    return pd.DataFrame(window | {"y_true": usable["mortality"]}).reset_index(drop=True)


TITLES = ("leaves the hospital alive", "dies in the hospital")
TASK = Task(
    "in-hospital-mortality", "binary", ("y_true",), "auroc", 2, samples, rules=rules, class_titles=TITLES
)
