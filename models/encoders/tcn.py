"""TCN: dilated causal convolutions over the hours (Bai et al. 2018)."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import channel_count
from models.encoders.ehr import CausalEncoder
from models.encoders.hours import earlier_rows
from models.rows import take_rows
from utils.device import to_device

KERNEL = 4  # hours that a convolution reads, `dilation` hours apart


class TCNEncoder(CausalEncoder):
    """A temporal convolutional network (Bai et al., arXiv 1803.01271); the feature is that of the last hour.

    Layer l (from 0) is two causal convolutions of 4 hours that lie 2^l hours apart, with weight
    normalisation, ReLU and dropout, and a residual connection. With L layers an hour sees the 6 (2^L - 1)
    hours before it.

    256 channels and kernels of 4 are those of HiRID-ICU-Benchmark for mortality (Yeche et al. 2021); 5 layers
    see a week of hours.
    """

    def __init__(self, dim: int = 256, layers: int = 5, dropout: float = 0.0) -> None:
        super().__init__()
        self.feature_dim = dim
        widths = [channel_count(), *[dim] * layers]
        self.blocks = nn.ModuleList(Block(widths[layer], dim, 2**layer, dropout) for layer in range(layers))

    def states(self, ehr: PackedSequence) -> PackedSequence:
        """Map packed hours [sum of hours, channels] to states [sum of hours, dim], float32."""
        hours = ehr.data
        for block in self.blocks:
            hours = block(hours, ehr.batch_sizes)
        return ehr._replace(data=hours.to(torch.promote_types(hours.dtype, torch.float32)))

    def weights_by_layer(self) -> list[list[nn.Parameter]]:
        """Return the weights of each layer, from the input to the output."""
        return [list(block.parameters()) for block in self.blocks]


class Block(nn.Module):
    """Two convolutions and a residual connection; its convolutions are applied to packed hours."""

    def __init__(self, inputs: int, outputs: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            weight_norm(nn.Conv1d(width, outputs, KERNEL, dilation=dilation)) for width in (inputs, outputs)
        )
        self.shortcut = nn.Linear(inputs, outputs) if inputs != outputs else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.dilation = dilation

    def forward(self, hours: Tensor, batch_sizes: Tensor) -> Tensor:
        """Map packed hours [N, inputs] to [N, outputs]; before its first hour a stay is 0."""
        taps = [
            to_device(earlier_rows(batch_sizes, step * self.dilation), hours.device)
            for step in reversed(range(1, KERNEL))
        ]
        hidden = hours
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv1d) and convolution.bias is not None
            weight = convolution.weight.permute(2, 0, 1)  # [KERNEL, outputs, inputs]
            products = functional.linear(hidden, weight.flatten(0, 1)).chunk(KERNEL, dim=1)
            hidden = products[-1] + convolution.bias
            for product, tap in zip(products[:-1], taps, strict=True):
                hidden = hidden + take_rows(product, tap)
            hidden = self.dropout(hidden.relu())
        output: Tensor = (hidden + self.shortcut(hours)).relu()
        return output
