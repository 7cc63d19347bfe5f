"""GRU-D: a GRU whose inputs and states decay with the time since the last observation (Che et al. 2018)."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from datasets.schema import variables
from models.encoders.ehr import CausalEncoder
from models.encoders.hours import Blocks

DAY = 24  # hours


class GRUDEncoder(CausalEncoder):
    """A GRU-D over hourly bins (Che et al., Sci Rep 2018); the feature of a stay is its last hidden state.

    A variable that was last observed D hours before has exp(-relu(w D + b)) of its last value, and decays to
    its mean of the training split, which normalisation made 0; a category decays to none. The hidden state
    is multiplied by exp(-relu(W D + b)) before each step, and the masks are an input of the GRU. Before the
    first observation, the last value is the variable's normal one, and D counts from ICU admission.

    One layer, as published. 64 units are those of the GRU of HiRID-ICU-Benchmark for mortality (Yeche et al.
    2021). Rates of decay start at 0 to 1 per day of one variable. Dropout acts on the feature.
    """

    def __init__(self, dim: int = 64, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if layers != 1:
            raise ValueError(
                f"--ehr_layers {layers}: gru_d has one layer; use --ehr_layers 1, or leave it out"
            )
        self.feature_dim = dim
        self.values = variables()[0].mask_channel
        of_channel = [index for index, variable in enumerate(variables()) for _ in range(variable.width)]
        self.register_buffer("variable", torch.tensor(of_channel), persistent=False)
        self.value_rate = nn.Parameter(torch.rand(self.values) / DAY)
        self.value_offset = nn.Parameter(torch.zeros(self.values))
        self.state_decay = nn.Linear(len(variables()), dim)
        self.inputs = nn.Linear(self.values + len(variables()), 3 * dim)
        self.recurrent = nn.Linear(dim, 3 * dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.state_decay.weight, -1 / DAY, 1 / DAY)
        nn.init.zeros_(self.state_decay.bias)

    variable: Tensor

    def states(self, ehr: PackedSequence) -> PackedSequence:
        """Map packed hours [sum of hours, channels] to hidden states, float32 under autocast too."""
        with torch.autocast(ehr.data.device.type, enabled=False):
            hours = ehr.data.to(self.value_rate.dtype)
            values, masks = hours[:, : self.values], hours[:, self.values :]
            elapsed = hours_since(masks, Blocks.of_hours(ehr))
            rate = self.value_rate * elapsed.index_select(1, self.variable) + self.value_offset
            observed = masks.index_select(1, self.variable)
            decayed = values * torch.where(observed > 0, 1.0, (-rate.relu()).exp())
            kept = (-self.state_decay(elapsed).relu()).exp()
            inputs = self.inputs(torch.cat([decayed, masks], dim=1))
            return ehr._replace(data=self._recur(inputs, kept, ehr.batch_sizes))

    def _recur(self, inputs: Tensor, kept: Tensor, batch_sizes: Tensor) -> Tensor:
        """Return the hidden states [N, dim] of packed inputs [N, 3 dim] and shares of the state [N, dim]."""
        sizes = batch_sizes.tolist()
        state, states = kept.new_zeros(sizes[0], self.feature_dim), []
        for size, hour, share in zip(sizes, inputs.split(sizes), kept.split(sizes), strict=True):
            before = state[:size] * share  # stays are sorted by length, so the others have ended
            reset, update, new = hour.chunk(3, dim=1)
            from_reset, from_update, from_new = self.recurrent(before).chunk(3, dim=1)
            update = (update + from_update).sigmoid()
            new = (new + (reset + from_reset).sigmoid() * from_new).tanh()
            state = new + update * (before - new)
            states.append(state)
        return torch.cat(states)

    def finish(self, states: Tensor) -> Tensor:
        """Apply dropout to the features [B, dim]."""
        feature: Tensor = self.dropout(states)
        return feature


def hours_since(masks: Tensor, blocks: Blocks) -> Tensor:
    """Return the hours since each variable was last observed before an hour, [N, V], of masks [N, V].

    They count from the first hour for a variable that was not observed yet.
    """

    def of_block(_: Tensor, observed: Tensor) -> Tensor:
        hour = torch.arange(observed.shape[1], device=observed.device)[:, None]
        last = torch.where(observed > 0, hour, 0).cummax(dim=1).values
        before = torch.cat([torch.zeros_like(last[:, :1]), last[:, :-1]], dim=1)
        return (hour - before).to(observed.dtype)

    return blocks.apply(of_block, masks)
