#!/usr/bin/env bash
# Question: survival after admission is recorded in whole days, so that deaths and discharges (censored) share days.
# Is the Brier score by inverse censoring weights of the true survival function that of uncensored data?
# Guess: yes, up to noise: a death on day t is weighted by the chance of being uncensored before t, as ties need.
# Seen with scikit-survival 0.28.0, numpy 2.4.6: it is 5 to 15 % too high, whatever the number of patients. A death is
# weighted by the chance of being uncensored through day t itself, so deaths count too much, and a model that tells
# too few survivors scores better than the truth. By the chance just before t the score is right; so it is without
# ties, with the same rates in continuous time. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check scikit-survival==0.28.0 numpy==2.4.6 \
  scipy==1.17.1 scikit-learn==1.9.1 pandas==2.3.3
"$folder/env/bin/python" -W error::UserWarning - <<'PY'
from importlib.metadata import version

import numpy as np
from sksurv.metrics import brier_score
from sksurv.util import Surv

print(*(f"{name} {version(name)}" for name in ("scikit-survival", "numpy")))
random, patients, days = np.random.default_rng(0), 100_000, np.array([1.0, 3.0, 5.0])
alive, stays = 0.8, 0.85  # each day, with ties as they come
truth = alive**days * (1 - alive**days)


def score(death: np.ndarray, discharge: np.ndarray, survival: np.ndarray) -> np.ndarray:
    known = Surv.from_arrays(death <= discharge, np.minimum(death, discharge))
    return brier_score(known, known, np.tile(survival, (len(death), 1)), days)[1]


death = random.geometric(1 - alive, patients).astype(float)
discharge = random.geometric(1 - stays, patients).astype(float)
in_days = score(death, discharge, alive**days)
pessimist = score(death, discharge, alive**days - 0.03)
spread = [random.exponential(-1 / np.log(rate), patients) for rate in (alive, stays)]
continuous = score(*spread, alive**days)
time, died = np.minimum(death, discharge), death <= discharge
dead, left = died[:, None] & (time[:, None] <= days), time[:, None] > days
by_hand = {}
for name, day in (("before t", time - 1), ("through t", time)):
    terms = dead * (alive**days) ** 2 / stays ** day[:, None] + left * (1 - alive**days) ** 2 / stays**days
    by_hand[name] = terms.mean(0)
for name, values in (("truth", truth), ("in days", in_days), ("in days, survival - 0.03", pessimist),
                     ("continuous", continuous), *((f"by hand, uncensored {key}", by_hand[key]) for key in by_hand)):
    print(f"{name}: {np.round(values, 4).tolist()} on days {days.tolist()}")
assert (in_days > 1.04 * truth).all() and (pessimist < in_days).all()
assert np.allclose(by_hand["before t"], truth, rtol=0.02) and np.allclose(continuous, truth, rtol=0.02)
assert np.allclose(by_hand["through t"], in_days, rtol=0.02)
PY
