"""Random raw cohorts for property tests: a few subjects with stays, charted values and X-rays around them."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from tests.raw_tables import admission, patient, stay, write_mimic_cxr, write_mimic_iv

CHART_ITEMS = (220045, 220210, 220050, 220051, 220052, 220277, 223761, 223835, 226512)
TEXTS = ("To Pain", "To Speech", "Spontaneously", "None")
START = datetime(2150, 1, 1)


@dataclass
class RandomCohort:
    """Raw rows of a cohort; `intime` and `los` (hours) by stay_id."""

    tables: dict[str, list[dict]] = field(default_factory=dict)
    metadata: list[dict] = field(default_factory=list)
    chexpert: list[dict] = field(default_factory=list)
    intime: dict[int, datetime] = field(default_factory=dict)
    los: dict[int, float] = field(default_factory=dict)

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both releases; return their folders."""
        return write_mimic_iv(folder / "iv", **self.tables), write_mimic_cxr(
            folder / "cxr", self.metadata, self.chexpert
        )


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def random_cohort(seed: int, subjects: int = 14) -> RandomCohort:
    """One or two admissions a subject, each with one stay of 2 to 60 hours."""
    rng = np.random.default_rng(seed)
    made = RandomCohort(
        {
            name: []
            for name in ("patients", "admissions", "icustays", "chartevents", "labevents", "diagnoses_icd")
        }
    )
    for subject in range(10_000_000, 10_000_000 + subjects):
        made.tables["patients"].append(patient(subject))
        for number in range(rng.integers(1, 3)):
            _add_stay(made, rng, subject, subject * 10 + number, START + timedelta(days=40 * number))
    return made


def _add_stay(
    made: RandomCohort, rng: np.random.Generator, subject: int, hadm: int, intime: datetime
) -> None:
    hours = round(float(rng.uniform(2, 60)) * 3600) / 3600
    out, stay_id = intime + timedelta(hours=hours), hadm * 10
    death = (
        {"deathtime": text(intime + timedelta(hours=hours * rng.uniform(0.5, 1)))}
        if rng.random() < 0.3
        else {}
    )
    ends = {"admittime": text(intime - timedelta(days=1)), "dischtime": text(out + timedelta(days=1))}
    made.tables["admissions"].append(admission(subject, hadm, **ends, **death))
    made.tables["icustays"].append(
        stay(subject, hadm, stay_id, hours / 24, intime=text(intime), outtime=text(out))
    )
    made.tables["diagnoses_icd"].append(
        {"subject_id": subject, "hadm_id": hadm, "seq_num": 1, "icd_version": 9,
         "icd_code": str(rng.choice(["99592", "41071", "4280"]))}
    )  # fmt: skip
    made.intime[stay_id], made.los[stay_id] = intime, hours
    for _ in range(rng.integers(0, 60)):
        moment = intime + timedelta(seconds=int(rng.uniform(-3, hours + 3) * 3600))
        own = {"subject_id": subject, "hadm_id": hadm, "stay_id": stay_id, "charttime": text(moment)}
        own |= {"itemid": int(rng.choice(CHART_ITEMS)), "value": str(rng.integers(20, 140))}
        made.tables["chartevents"].append(
            own | ({} if rng.random() < 0.8 else {"itemid": 220739, "value": str(rng.choice(TEXTS))})
        )
        if rng.random() < 0.2:
            made.tables["labevents"].append(own | {"itemid": 50931})
    for number in range(rng.integers(0, 5)):
        moment = intime + timedelta(seconds=int(rng.uniform(-5, hours + 5) * 3600))
        study = stay_id * 10 + number
        clock = float(moment.strftime("%H%M%S"))
        made.metadata.append(
            {"dicom_id": f"d{study}", "subject_id": subject, "study_id": study, "ViewPosition": "AP",
             "StudyDate": moment.strftime("%Y%m%d"), "StudyTime": clock}
        )  # fmt: skip
        made.chexpert.append({"subject_id": subject, "study_id": study, "Edema": float(rng.integers(-1, 2))})
