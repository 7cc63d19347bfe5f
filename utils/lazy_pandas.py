"""Pandas, imported when it is first used: `from utils.lazy_pandas import pd`.

Its import takes a third of a second, a tenth of what a training takes to its first step, which needs none.
A module that names its types in annotations begins with `from __future__ import annotations`.
"""

from typing import TYPE_CHECKING

from utils.lazy import LazyModule

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = LazyModule("pandas")

__all__ = ["pd"]
