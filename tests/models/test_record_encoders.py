"""Every record encoder: what all must fulfil, and each against a slow reference."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from datasets.schema import Batch, Triplets, channel_count, variables
from models.classifier import ClassifierConfig
from models.encoders import (
    EHR_ENCODERS,
    CausalEncoder,
    EHREncoder,
    EncoderConfig,
    LSTMEncoder,
    build_encoders,
    duett,
    strats,
    with_shape,
)
from models.encoders.hours import Blocks, earlier_rows
from models.encoders.transformer import LONGEST_WAVE
from tests.random_batches import random_batch, random_triplets, take_samples

READS_HOURS = [name for name, kind in EHR_ENCODERS.items() if not kind.needs.triplets]
READS_TRIPLETS = [name for name in EHR_ENCODERS if name not in READS_HOURS]
CAUSAL = [name for name, kind in EHR_ENCODERS.items() if issubclass(kind, CausalEncoder)]
DIMS = {"transformer": 16, "strats": 16}
HOURS = (5, 48, 1, 17, 2)


def make_encoder(name: str, **shape: float) -> EHREncoder:
    """A small encoder in float64."""
    torch.manual_seed(0)
    settings = {"ehr_dim": DIMS.get(name, 6), "ehr_dropout": 0.0, **shape}
    encoder = build_encoders(EncoderConfig(ehr_encoder=name, **settings), ["ehr"])["ehr"]
    assert isinstance(encoder, EHREncoder)
    return encoder.double().eval()


def make_batch() -> Batch:
    """Samples in float64, of which some read the beginning of a stay that others read to its end.

    Masks are 0 or 1, as in a store.
    """
    batch = random_batch(HOURS, [False] * len(HOURS))
    data = batch.ehr.data.double()
    first_mask = variables()[0].mask_channel
    data[:, first_mask:] = (data[:, first_mask:] > 0.5).double()
    stay, hours = torch.tensor([1, 0, 1, 2, 3, 1, 4]), torch.tensor([48, 5, 20, 1, 17, 3, 1])
    size = len(stay)
    return batch._replace(
        ehr=batch.ehr._replace(data=data),
        stay=stay,
        last=hours - 1,
        hours=hours,
        image=torch.full((size,), -1),
        has_ehr=torch.ones(size, dtype=torch.bool),
        has_cxr=torch.zeros(size, dtype=torch.bool),
        labels=torch.zeros(size, 1),
        row=torch.arange(size),
        gap_days=torch.full((size,), torch.nan),
        triplets=random_triplets(HOURS, stay, hours.double()),
    )


def as_float32(batch: Batch) -> Batch:
    parts = (part.float() if part.is_floating_point() else part for part in batch.triplets)
    ehr = batch.ehr._replace(data=batch.ehr.data.float())
    return batch._replace(ehr=ehr, triplets=Triplets(*parts))


@pytest.mark.parametrize("name", EHR_ENCODERS)
def test_a_sample_is_encoded_as_if_its_hours_were_all_there_is(name: str) -> None:
    """Neither later hours of its stay, nor other stays, nor padding to the longest stay are read."""
    encoder, batch = make_encoder(name), make_batch()
    features = encoder.sample_features(batch)
    assert features.shape == (len(batch.row), encoder.feature_dim)
    cut = take_samples(batch, range(len(batch.row)))
    assert torch.allclose(features, encoder.sample_features(cut), atol=1e-12)
    for row, feature in enumerate(features):
        alone = encoder.sample_features(take_samples(batch, [row]))
        assert torch.allclose(feature, alone[0], atol=1e-12)


@pytest.mark.parametrize("name", READS_HOURS)
def test_a_feature_depends_on_each_of_its_hours_and_on_no_other(name: str) -> None:
    encoder, batch = make_encoder(name), make_batch()
    data = batch.ehr.data.requires_grad_()
    feature = encoder.sample_features(batch)[2]  # the first 20 of 48 hours
    (gradient,) = torch.autograd.grad(feature.square().sum(), data)
    stays = unpack_sequence(batch.ehr._replace(data=gradient))
    assert all(not stay.any() for index, stay in enumerate(stays) if index != batch.stay[2])
    read = stays[batch.stay[2]].any(dim=1)
    assert read[19] and not read[20:].any()


@pytest.mark.parametrize("name", READS_TRIPLETS)
def test_a_feature_depends_on_each_of_its_triplets_and_on_no_other(name: str) -> None:
    encoder, batch = make_encoder(name), make_batch()
    hours, value = (part.requires_grad_() for part in (batch.triplets.hours, batch.triplets.value))
    feature = encoder.sample_features(batch._replace(ehr=None))[2]
    first, count = batch.triplets.first[2], batch.triplets.counts[2]
    read = torch.zeros(len(value), dtype=torch.bool)
    read[first : first + count] = True
    assert 30 < count < 2 * 48 and (hours[read] <= 20).all()
    for gradient in torch.autograd.grad(feature.square().sum(), (value, hours), allow_unused=True):
        if gradient is not None:
            assert torch.equal(gradient != 0, read)


@pytest.mark.parametrize("name", READS_TRIPLETS)
def test_a_sample_without_a_triplet_has_a_feature(name: str) -> None:
    encoder, batch = make_encoder(name).train(), make_batch()
    for count in (batch.triplets.counts * (batch.row != 1), 0 * batch.triplets.counts):
        empty = batch._replace(triplets=batch.triplets._replace(counts=count))
        features = encoder.sample_features(empty)
        assert features.shape == (len(batch.row), encoder.feature_dim) and features.isfinite().all()
        features.square().sum().backward()
        assert all(weight.grad.isfinite().all() for weight in encoder.parameters())


@pytest.mark.parametrize("name", EHR_ENCODERS)
def test_every_weight_learns_and_features_are_float32_under_autocast(name: str) -> None:
    encoder, batch = make_encoder(name).float().train(), as_float32(make_batch())
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder.sample_features(batch)
    assert features.dtype == torch.float32
    features.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in encoder.parameters())


@pytest.mark.parametrize("name", EHR_ENCODERS)
def test_dropout_acts_in_training_alone(name: str) -> None:
    encoder, batch = make_encoder(name, ehr_dropout=0.5), make_batch()
    assert torch.equal(encoder.sample_features(batch), encoder.sample_features(batch))
    encoder.train()
    assert not torch.equal(encoder.sample_features(batch), encoder.sample_features(batch))


@pytest.mark.parametrize("name", CAUSAL)
def test_the_states_that_a_fusion_may_change_lead_to_the_features(name: str) -> None:
    encoder, batch = make_encoder(name), make_batch()
    hours = encoder.encode_lower_layers(batch.ehr, batch.stay, batch.hours)
    assert len(hours.states) == batch.hours.sum()
    assert torch.allclose(encoder.encode_top_layer(hours), encoder.sample_features(batch), atol=1e-12)


@pytest.mark.parametrize("name", EHR_ENCODERS)
def test_the_shape_that_is_not_given_is_the_published_one(name: str) -> None:
    shape = with_shape(EncoderConfig(ehr_encoder=name, ehr_dropout=0.25))
    assert shape.ehr_dropout == 0.25 and shape.ehr_dim >= 24 and shape.ehr_layers >= 1
    assert with_shape(shape) == shape


@pytest.mark.parametrize("name", EHR_ENCODERS)
def test_each_weight_is_of_one_layer(name: str) -> None:
    encoder = make_encoder(name)
    layers, expected = encoder.weights_by_layer(), {"tcn": 5, "transformer": 3, "strats": 3, "duett": 3}
    assert len(layers) == expected.get(name, 1)  # 3: the embedding and two layers
    of_layers = [id(weight) for layer in layers for weight in layer]
    assert sorted(of_layers) == sorted(map(id, encoder.parameters()))


def test_an_objectives_own_width_is_the_lstms() -> None:
    assert with_shape(EncoderConfig(), 256).ehr_dim == 256
    assert with_shape(EncoderConfig(ehr_dim=8), 256).ehr_dim == 8
    assert with_shape(EncoderConfig(ehr_encoder="gru_d"), 256).ehr_dim == 64


class Backwards(EHREncoder):
    """An LSTM that reads from the last hour to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 4
        self.lstm = nn.LSTM(channel_count(), 4).double()

    def forward(self, ehr) -> Tensor:
        stays = [stay.flip(0) for stay in unpack_sequence(ehr)]
        return self.lstm(pack_sequence(stays, enforce_sorted=False))[1][0][0]


def test_an_encoder_that_also_looks_ahead_reads_each_sample_on_its_own() -> None:
    encoder, batch = Backwards(), make_batch()
    assert not encoder.needs.shares_stays
    cut = take_samples(batch, range(len(batch.row)))
    assert torch.allclose(encoder.sample_features(batch), encoder(cut.ehr), atol=1e-12)


def test_gru_d_is_its_equations_in_loops() -> None:
    encoder, batch = make_encoder("gru_d"), make_batch()
    for weight in encoder.parameters():
        nn.init.normal_(weight, std=0.3)
    weights = {key: value.tolist() for key, value in encoder.state_dict().items()}
    for number, hours in enumerate(unpack_sequence(batch.ehr)):
        expected = slow_gru_d(weights, hours.tolist(), dim=6)
        assert encoder(pack_sequence([hours]))[0].tolist() == pytest.approx(expected, abs=1e-9), number


def slow_gru_d(weights: dict[str, list], hours: list[list[float]], dim: int) -> list[float]:
    """The last hidden state, with the time since each observation counted hour by hour."""

    def linear(name: str, row: int, inputs: list[float]) -> float:
        products = zip(weights[f"{name}.weight"][row], inputs, strict=True)
        return sum(w * x for w, x in products) + weights[f"{name}.bias"][row]

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    state, since = [0.0] * dim, [0] * len(variables())
    for number, hour in enumerate(hours):
        masks = [hour[variable.mask_channel] for variable in variables()]
        if number:
            observed = [hours[number - 1][variable.mask_channel] for variable in variables()]
            since = [1 if seen else before + 1 for seen, before in zip(observed, since, strict=True)]
        inputs = []
        for variable, mask, elapsed in zip(variables(), masks, since, strict=True):
            for channel in range(variable.first_channel, variable.first_channel + variable.width):
                rate = weights["value_rate"][channel] * elapsed + weights["value_offset"][channel]
                inputs.append(hour[channel] * (1 if mask else math.exp(-max(rate, 0))))
        inputs += masks
        kept = [math.exp(-max(linear("state_decay", row, since), 0)) for row in range(dim)]
        state = [share * value for share, value in zip(kept, state, strict=True)]
        after = []
        for row in range(dim):
            from_input = [linear("inputs", part * dim + row, inputs) for part in range(3)]
            from_state = [linear("recurrent", part * dim + row, state) for part in range(3)]
            reset, update = (sigmoid(from_input[part] + from_state[part]) for part in range(2))
            new = math.tanh(from_input[2] + reset * from_state[2])
            after.append((1 - update) * new + update * state[row])
        state = after
    return state


def test_strats_is_its_published_equations() -> None:
    """Sample by sample, head by head and triplet by triplet, with the weights of the encoder."""
    encoder, batch = make_encoder("strats"), make_batch()
    features = encoder.sample_features(batch)
    for row in (0, 2, 6):
        part = slice(
            int(batch.triplets.first[row]), int(batch.triplets.first[row] + batch.triplets.counts[row])
        )
        hours, channel, value = (values[part] for values in batch.triplets[:3])
        time = 2 * hours / batch.hours[row] - 1
        tokens = encoder.channel.weight[channel]
        for embedding, numbers in ((encoder.time, time), (encoder.value, value)):
            hidden = (numbers[:, None] @ embedding.layers[0].weight.T + embedding.layers[0].bias).tanh()
            tokens = tokens + hidden @ embedding.layers[2].weight.T
        for layer in encoder.layers:
            mixed = []
            for head in range(16):
                query, key, values = (
                    tokens @ part.weight[head : head + 1].T for part in (layer.query, layer.key, layer.value)
                )
                mixed.append((query @ key.T).softmax(dim=1) @ values)
            tokens = (torch.cat(mixed, dim=1) @ layer.output.weight.T + tokens) / 2
            tokens = (layer.feed_forward(tokens) + tokens) / 2
        scores = (tokens @ encoder.weights[0].weight.T + encoder.weights[0].bias).tanh()
        share = (scores @ encoder.weights[2].weight.T).softmax(dim=0)
        assert torch.allclose(features[row], (share * tokens).sum(dim=0), atol=1e-12)


def test_strats_reads_the_last_triplets_of_a_sample_with_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, batch = make_encoder("strats"), make_batch()
    monkeypatch.setattr(strats, "MOST_TRIPLETS", 7)
    most = batch.triplets.counts.clamp(max=7)
    last = batch.triplets._replace(first=batch.triplets.first + batch.triplets.counts - most, counts=most)
    features = encoder(batch.triplets)
    monkeypatch.undo()
    assert torch.equal(features, encoder(last)) and not torch.equal(features, encoder(batch.triplets))


def test_strats_leaves_out_all_observations_of_a_variable_together() -> None:
    encoder, batch = make_encoder("strats", ehr_dropout=0.5).train(), make_batch()
    channel, sample = batch.triplets.channel, torch.arange(len(batch.triplets.channel)) % 3
    kept = encoder._draw_kept(channel, sample, 3)
    groups = {(int(s), int(v)) for s, v in zip(sample, encoder.variable[channel], strict=True)}
    left_out = 0
    for s, v in groups:
        of_group = kept[(sample == s) & (encoder.variable[channel] == v)]
        assert of_group.all() or not of_group.any()
        left_out += not of_group.any()
    assert 0 < left_out < len(groups)


def test_duett_attends_along_both_axes_as_by_hand() -> None:
    """Sample by sample, bin by bin and token by token."""
    encoder, batch = make_encoder("duett"), make_batch()
    for buffer in encoder.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    features = encoder.sample_features(batch)
    for row in (2, 6):
        first, count = int(batch.triplets.first[row]), int(batch.triplets.counts[row])
        hours, channel, value = (part[first : first + count].tolist() for part in batch.triplets[:3])
        end = int(batch.hours[row])
        seen = [[[] for _ in variables()] for _ in range(32)]
        for time, where, what in zip(hours, channel, value, strict=True):
            (number,) = [
                index
                for index, variable in enumerate(variables())
                if variable.first_channel <= where < variable.first_channel + variable.width
            ]
            seen[min(int(32 * time / end), 31)][number].append(
                (where - variables()[number].first_channel, what)
            )
        psi = torch.stack(
            [torch.stack([embed(encoder, *cell) for cell in enumerate(cells)]) for cells in seen]
        )
        psi = torch.cat([psi, encoder.token.expand(1, len(variables()), -1)])  # [33, V, dim]
        days = torch.tensor([[end * (index + 1) / 32 / 24] for index in range(32)], dtype=torch.float64)
        moments = torch.cat([encoder.time_embedding(days), encoder.token_embedding[None]])
        for over_variables, over_time in zip(encoder.over_variables, encoder.over_time, strict=True):
            columns = [psi[:, number].flatten() for number in range(len(variables()))]
            columns = slow_layer(over_variables, torch.stack(columns) + encoder.variable_embedding)
            psi = torch.stack([column.view(33, -1) for column in columns], dim=1)
            rows = slow_layer(over_time, torch.stack([part.flatten() for part in psi]) + moments)
            psi = rows.view(33, len(variables()), -1)
        assert torch.allclose(features[row], psi[32].flatten(), atol=1e-9)


def embed(encoder: EHREncoder, number: int, observed: list[tuple[int, float]]) -> Tensor:
    """The embedding of a variable in a bin, of which each observation has a place and a value."""
    mean = torch.zeros(variables()[number].width, dtype=torch.float64)
    for place, value in observed:
        mean[place] += value / len(observed)
    counted = encoder.counts.weight[min(len(observed), 15)]
    return encoder.embeddings[number](torch.cat([mean, counted])[None])[0]


def slow_layer(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Attention and feed-forward of tokens [K, width], token by token and head by head."""

    def normal(norm: nn.Module, token: Tensor) -> Tensor:
        return norm.length * token / token.square().sum().sqrt()

    query, key, value = (
        part.unflatten(1, (2, -1))
        for part in layer.query_key_value(
            torch.stack([normal(layer.attention_norm, token) for token in tokens])
        ).chunk(3, dim=1)
    )
    after = []
    for index, token in enumerate(tokens):
        heads = []
        for head in range(2):
            scores = torch.stack([query[index, head] @ other for other in key[:, head]])
            scores = scores / math.sqrt(query.shape[2])
            heads.append(sum(w * v for w, v in zip(scores.softmax(dim=0), value[:, head], strict=True)))
        token = token + layer.output.weight @ torch.cat(heads)
        after.append(token + layer.feed_forward(normal(layer.feed_forward_norm, token)))
    return torch.stack(after)


def test_duett_starts_with_vectors_as_long_as_the_square_root_of_their_width() -> None:
    norm = duett.ScaleNorm(9)
    assert norm(torch.randn(5, 9)).norm(dim=1).tolist() == pytest.approx([3.0] * 5)


def test_tcn_is_convolutions_of_each_stay_after_zeros() -> None:
    encoder, batch = make_encoder("tcn", ehr_layers=3), make_batch()
    states = unpack_sequence(encoder.states(batch.ehr))
    for found, hours in zip(states, unpack_sequence(batch.ehr), strict=True):
        signal = hours.T[None]
        for block in encoder.blocks:
            hidden = signal
            for convolution in block.convolutions:
                zeros = torch.zeros(1, hidden.shape[1], 3 * block.dilation, dtype=hidden.dtype)
                hidden = convolution(torch.cat([zeros, hidden], dim=2)).relu()
            signal = (hidden + block.shortcut(signal.transpose(1, 2)).transpose(1, 2)).relu()
        assert torch.allclose(found, signal[0].T, atol=1e-12)
    assert [block.dilation for block in encoder.blocks] == [1, 2, 4]


def test_the_transformer_is_pytorchs_without_the_hours_that_come_later() -> None:
    """No mask: what a layer gives for an hour is what it gives for the last of the hours up to it."""
    encoder, dim = make_encoder("transformer"), 16
    layers = [pytorch_layer(layer, dim) for layer in encoder.layers]
    stay = make_batch().ehr
    (hours,) = [stay for stay in unpack_sequence(stay) if len(stay) == 17]
    angles = [[hour * LONGEST_WAVE ** (-2 * wave / dim) for wave in range(dim // 2)] for hour in range(17)]
    positions = torch.tensor(
        [[*map(math.sin, row), *map(math.cos, row)] for row in angles], dtype=torch.float64
    )
    tokens = encoder.embed(hours) + positions
    for layer in layers:
        tokens = torch.stack([layer(tokens[None, :end])[0, -1] for end in range(1, 18)])
    assert torch.allclose(encoder.states(pack_sequence([hours])).data, encoder.norm(tokens), atol=1e-6)


def pytorch_layer(layer: nn.Module, dim: int) -> nn.Module:
    """PyTorch's own layer with the weights of ours."""
    theirs = nn.TransformerEncoderLayer(
        dim, 4, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).double()
    pairs = {
        "self_attn.in_proj_": layer.query_key_value,
        "self_attn.out_proj.": layer.output,
        "linear1.": layer.feed_forward[0],
        "linear2.": layer.feed_forward[2],
        "norm1.": layer.attention_norm,
        "norm2.": layer.feed_forward_norm,
    }
    state = {
        f"{name}{key}": value for name, ours in pairs.items() for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state)
    return theirs.eval()


@pytest.mark.parametrize("lengths", [[3], [7, 1, 7, 30, 2, 16], [1, 1], [0, 5, 0, 2]])
def test_blocks_hold_each_row_once_and_pad_at_most_twofold(lengths: list[int]) -> None:
    blocks = Blocks.of_lengths(np.array(lengths), torch.device("cpu"))
    data = torch.arange(sum(lengths))[:, None]
    assert torch.equal(blocks.apply(lambda present, rows: 2 * rows, data), 2 * data)
    assert sum(rows.numel() for rows in blocks.rows) <= 2 * sum(lengths)
    read = torch.cat([rows[present] for rows, present in zip(blocks.rows, blocks.present, strict=True)])
    assert torch.equal(read.sort().values, data[:, 0])


def test_earlier_rows_are_those_of_the_same_stay() -> None:
    ehr = pack_sequence([torch.full((n, 1), float(n)) for n in (4, 2, 7)], enforce_sorted=False)
    for hours in (1, 3):
        rows = earlier_rows(ehr.batch_sizes, hours)
        hour = torch.arange(7).repeat_interleave(ehr.batch_sizes)
        assert torch.equal(rows < 0, hour < hours)
        later = rows >= 0
        assert torch.equal(ehr.data[later], ehr.data[rows[later]])
        assert torch.equal(hour[later] - hours, hour[rows[later]])


def test_errors_name_the_flag_and_the_cure() -> None:
    with pytest.raises(ValueError, match=r"unknown --ehr_encoder stratz; did you mean strats\?"):
        EncoderConfig(ehr_encoder="stratz")
    with pytest.raises(ValueError, match="--ehr_layers 2: gru_d has one layer; use --ehr_layers 1"):
        make_encoder("gru_d", ehr_layers=2)
    with pytest.raises(ValueError, match="--ehr_dim 24: strats has 16 heads; use a multiple of 16"):
        make_encoder("strats", ehr_dim=24)
    with pytest.raises(ValueError, match=r"--ehr_dim 256: of duett .* up to 64, or leave it out for 24"):
        make_encoder("duett", ehr_dim=256)
    with pytest.raises(ValueError, match="--ehr_dim 12: transformer has 4 heads; use a multiple of 8"):
        make_encoder("transformer", ehr_dim=12)
    for wrong in ({"ehr_dim": 0}, {"ehr_layers": 0}, {"ehr_dropout": 1.5}):
        with pytest.raises(ValueError, match=rf"--{next(iter(wrong))} must be"):
            EncoderConfig(**wrong)


def test_a_fusion_inside_the_encoders_asks_for_states_by_the_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.classifier.EHR_ENCODERS", {"lstm": LSTMEncoder, "tcn": Backwards})
    with pytest.raises(ValueError, match=r"--fusion daft changes the states .* tcn has none; use lstm"):
        ClassifierConfig("daft", "binary", 1, EncoderConfig(ehr_encoder="tcn"))
