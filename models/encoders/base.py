"""What every encoder offers to heads and fusions."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class Encoder(nn.Module):
    """A module that maps its modality to features [B, feature_dim]."""

    feature_dim: int
    __call__: Callable[..., Tensor]

    def prefix_features(self, ehr: PackedSequence, stay: Tensor, last: Tensor) -> Tensor:
        """Return the features [n, feature_dim] of stays that are cut after an hour; stay, last: int64 [n]."""
        raise TypeError(f"{type(self).__name__} reads no hours")
