#!/usr/bin/env bash
# Question: what is the equalized odds difference when one group has no positive sample, as small subgroups often
# have?
# Guess: NaN or an error, because the group's true positive rate is not defined.
# Seen with fairlearn 0.15.0: the group's true positive rate counts as 0.0 without a warning, so that the difference
# is the whole true positive rate of the other group, and the model looks maximally unfair. Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install -q --disable-pip-version-check fairlearn==0.15.0 numpy==2.4.6 \
  scikit-learn==1.9.1
"$folder/env/bin/python" -W error::UserWarning - <<'PY'
from fairlearn.metrics import MetricFrame, equalized_odds_difference, true_positive_rate

truth = [1, 1, 0, 0, 0, 0, 0, 0]
guess = [1, 1, 0, 0, 0, 0, 0, 0]
group = ["large"] * 4 + ["small"] * 4
difference = equalized_odds_difference(truth, guess, sensitive_features=group)
rates = MetricFrame(metrics=true_positive_rate, y_true=truth, y_pred=guess, sensitive_features=group).by_group
print(f"a perfect classifier: true positive rates {rates.to_dict()}, equalized odds difference {difference}")
assert rates["small"] == 0.0 and difference == 1.0
PY
