"""The demo pretrains on pairs that suffice, of synthetic patients and of the 100 of the open demo."""

import pytest

from tools.demo import DemoConfig, pretraining


@pytest.mark.parametrize(
    ("mimic_iv", "task"), [("", "in-hospital-mortality"), ("mimic-iv-demo", "phenotyping")]
)
def test_real_patients_are_pretrained_on_the_pairs_of_every_stay(mimic_iv: str, task: str) -> None:
    """Of the open demo, one stay is left to validate mortality on, and a batch needs two pairs."""
    program, *flags = pretraining(DemoConfig(mimic_iv=mimic_iv))
    assert program == "simclr_trainer.py" and flags[flags.index("--task") + 1] == task
