"""What every record encoder offers to heads, objectives and fusions."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import SHARES_STAYS, Batch, RecordNeeds
from models.encoders.base import Encoder
from models.encoders.hours import HourlyStates
from utils.device import to_device


class EHREncoder(Encoder):
    """A module from packed hours [sum of hours, channels] to the features of stays [B, feature_dim], float32.

    Its constructor takes `dim`, `layers` and `dropout`, whose defaults are the published values: they are
    --ehr_dim, --ehr_layers and --ehr_dropout. `feature_dim` is the width of its features.

    Attributes:
        needs: What it reads beside the hours, and whether one pass over a stay serves all of its samples.
    """

    needs: ClassVar[RecordNeeds] = RecordNeeds()

    def sample_features(self, batch: Batch) -> Tensor:
        """Return the features [B, feature_dim] of B samples; here each sample is read on its own."""
        assert batch.ehr is not None, "a batch has the modalities of its fusion"
        features: Tensor = self(HourlyStates.of_prefixes(batch.ehr, batch.stay, batch.hours).packed())
        return features


class CausalEncoder(EHREncoder):
    """An encoder whose state in an hour depends on this hour and on earlier ones alone.

    One pass over a stay thus gives the features of all its samples, and a fusion can change the states by the
    hour: the feature of a stay is the state in its last hour.
    """

    needs = SHARES_STAYS

    @abstractmethod
    def states(self, ehr: PackedSequence) -> PackedSequence:
        """Map packed hours [sum of hours, channels] to states [sum of hours, feature_dim], float32."""

    def finish(self, states: Tensor) -> Tensor:
        """Return the features [B, feature_dim] of the states in the last hours; here the states."""
        return states

    def forward(self, ehr: PackedSequence) -> Tensor:
        """Map packed hours [sum of hours, channels] to features [B, feature_dim], float32."""
        return self.finish(HourlyStates.of(self.states(ehr)).last())

    def sample_features(self, batch: Batch) -> Tensor:
        """Return the features [B, feature_dim] of B samples; each stay is read once."""
        assert batch.ehr is not None, "a batch has the modalities of its fusion"
        return self.prefix_features(batch.ehr, batch.stay, batch.last)

    def prefix_features(self, ehr: PackedSequence, stay: Tensor, last: Tensor) -> Tensor:
        """Return the features [n, feature_dim] of n cut stays; stay, last hour: int64 [n]."""
        states = self.states(ehr)
        first_row = to_device(states.batch_sizes.cumsum(0) - states.batch_sizes, last.device)  # of each hour
        row_in_hour = states.unsorted_indices
        assert row_in_hour is not None, "stays are packed in any order"
        return self.finish(states.data[first_row[last] + row_in_hour[stay]])

    def encode_lower_layers(self, ehr: PackedSequence, stay: Tensor, hours: Tensor) -> HourlyStates:
        """Map packed hours to the states of samples that a fusion may change: here those of all layers.

        stay, hours: as in HourlyStates.of_prefixes.
        """
        return HourlyStates.of_prefixes(self.states(ehr), stay, hours)

    def encode_top_layer(self, hours: HourlyStates) -> Tensor:
        """Return the features [B, feature_dim], float32, of what `encode_lower_layers` returned."""
        return self.finish(hours.last())


def record_needs(module: nn.Module) -> RecordNeeds:
    """Return what the record encoder in a module needs; without one, what a causal encoder does."""
    found = (part.needs for part in module.modules() if isinstance(part, EHREncoder))
    return next(found, CausalEncoder.needs)
