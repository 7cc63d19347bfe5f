"""Which epochs of a pretraining are probed, and whose checkpoints stay in its folder."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tasks import TASKS
from training.optim import check_flag
from utils.choices import require_choice


@dataclass(frozen=True)
class SelectionConfig:
    """How the epochs of a pretraining are rated, and whose checkpoints are kept."""

    probe: str = ""
    """Train the linear probe of epoch_evaluation.py at the end of each epoch: for a task, or for several
    separated by commas, phenotyping,in-hospital-mortality. Each one's best epoch is kept; empty: no probe."""
    probe_epochs: int = 100
    """Epochs of each probe."""
    keep: str = "all"
    """Checkpoints <name>_epoch_<NN>.ckpt that stay: all; best: those of the best epochs by --probe alone; a
    number N: also those of the last N epochs. last.ckpt always stays; with best, that of a finished training
    is without the optimizer's state, so that no epochs can be added. best.ckpt, of the best epoch by
    --monitor, stays too, unless --keep is best and --probe chooses."""

    def __post_init__(self) -> None:
        for name in self.tasks:
            require_choice(TASKS, name, "probe")
        check_flag("probe_epochs", self.probe_epochs, self.probe_epochs >= 1, "use 1 or more")
        if not self.probe and self.probe_epochs != SelectionConfig.probe_epochs:
            raise ValueError(f"--probe_epochs {self.probe_epochs} is for --probe; add that, or leave it out")
        is_number = self.keep.isascii() and self.keep.isdigit() and int(self.keep) > 0
        check_flag("keep", self.keep, is_number or self.keep in ("all", "best"), "use all, best or a number")

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names in --probe, each once."""
        return tuple(dict.fromkeys(self.probe.split(","))) if self.probe else ()

    @property
    def leaves_best(self) -> bool:
        """Whether the best epoch by --monitor is kept, or those by --probe alone."""
        return self.keep != "best" or not self.probe

    def keep_epochs(self, best: Callable[[int], Collection[int]]) -> Callable[[int], Collection[int]]:
        """Return which epochs to keep after a number of epochs, given which are then the best by a probe.

        >>> kept = SelectionConfig(keep="2").keep_epochs(lambda done: [1])
        >>> sorted(kept(2)), sorted(kept(5))
        ([1, 2], [1, 4, 5])
        """
        if self.keep == "all":
            return lambda done: range(1, done + 1)
        last = 0 if self.keep == "best" else int(self.keep)
        return lambda done: {*best(done), *range(max(done - last, 0) + 1, done + 1)}
