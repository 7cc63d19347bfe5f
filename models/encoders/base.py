"""What every encoder offers to heads and fusions."""

from collections.abc import Callable

from torch import Tensor, nn

from datasets.schema import Batch


class Encoder(nn.Module):
    """A module that maps its modality to features [B, feature_dim]."""

    feature_dim: int
    __call__: Callable[..., Tensor]

    def sample_features(self, batch: Batch) -> Tensor:
        """Return the features [B, feature_dim] of the records of B samples."""
        raise TypeError(f"{type(self).__name__} reads no records")

    def weights_by_layer(self) -> list[list[nn.Parameter]]:
        """Return the weights of each layer, from the input to the output: by default, all are one layer.

        A layer is what --layer_lr_decay gives one learning rate.
        """
        return [list(self.parameters())]
