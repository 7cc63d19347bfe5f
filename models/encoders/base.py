"""What every encoder offers to heads and fusions."""

from collections.abc import Callable

from torch import Tensor, nn


class Encoder(nn.Module):
    """A module that maps its modality to features [B, feature_dim]."""

    feature_dim: int
    __call__: Callable[..., Tensor]
