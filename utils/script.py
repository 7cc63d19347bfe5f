"""How a command starts and ends: its flags, one clear error on standard error, and its exit status."""

import sys
from collections.abc import Callable
from typing import TypeVar

from utils.config import parse

T = TypeVar("T")


def run_script(main: Callable[[T], None], config: type[T]) -> None:
    """Parse the command line and run `main`.

    What a user can mend (ValueError, OSError) ends in one line and status 1, Ctrl-C in status 130; a wrong
    flag in status 2 (utils.config.parse). Anything else is a bug of ours and keeps its traceback.
    """
    settings = parse(config)
    try:
        main(settings)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
