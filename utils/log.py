"""Messages of the programs: plain lines on standard output that leave progress bars intact."""

import logging
import os
import sys

from tqdm import tqdm

logger = logging.getLogger("medmod")


def is_rank_zero() -> bool:
    """Return whether this process is the one that prints: the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


class _ProgressBarHandler(logging.Handler):
    """Prints above the progress bars; tqdm.contrib.logging would print to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        tqdm.write(prefix + record.getMessage())
        sys.stdout.flush()


_handler = _ProgressBarHandler()
_handler.addFilter(lambda _: is_rank_zero())
logger.addHandler(_handler)
logger.setLevel(logging.INFO)
logger.propagate = False
