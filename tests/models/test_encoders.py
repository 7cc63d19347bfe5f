"""The EHR encoder reads the last valid hour; the image encoder takes any number of images."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence
from torchvision.models import resnet18

from datasets.schema import channel_count
from models.encoders import (
    CXREncoder,
    EncoderConfig,
    HourlyStates,
    LSTMEncoder,
    build_encoders,
)
from models.encoders.cxr import IMAGENET_MEAN, IMAGENET_STD
from models.encoders.lstm import MAX_PADDING, chunk_sizes, run_lstm
from models.taps import by_taps


def stays(*hours: int) -> list[torch.Tensor]:
    return [torch.randn(n, channel_count(), generator=torch.Generator().manual_seed(n)) for n in hours]


def packed(*hours: int) -> PackedSequence:
    return pack_sequence(stays(*hours), enforce_sorted=False)


@pytest.mark.parametrize("layers", [1, 2])
def test_each_stay_of_a_batch_is_encoded_as_if_alone_and_in_its_place(layers: int) -> None:
    encoder = LSTMEncoder(dim=16, layers=layers).eval()
    together = encoder(packed(5, 48, 1, 17))
    alone = torch.cat([encoder(packed(n)) for n in (5, 48, 1, 17)])
    assert torch.allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_feature_is_the_hidden_state_of_the_last_hour(layers: int) -> None:
    encoder, network = (
        LSTMEncoder(dim=8, layers=layers).eval(),
        torch.nn.LSTM(channel_count(), 8, layers),
    )
    weights = dict(encoder.lstm.named_parameters())
    for name, weight in encoder.top.named_parameters() if layers > 1 else ():
        weights[name.replace("_l0", f"_l{layers - 1}")] = weight
    network.load_state_dict(weights)
    states, hours = pad_packed_sequence(network(packed(3, 9))[0], batch_first=True)
    assert torch.allclose(encoder(packed(3, 9)), states[torch.arange(2), hours - 1], atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hours", [(16, 1, 49, 17, 32), (3,), (4, 4, 4), (1, 1, 2, 90)])
def test_chunks_of_padded_hours_give_the_states_and_gradients_of_nn_lstm(hours, dtype, layers) -> None:
    lstm, inputs = torch.nn.LSTM(channel_count(), 8, layers).to(dtype), packed(*hours)
    inputs = inputs._replace(data=inputs.data.to(dtype))
    results = []
    for states, last in (run_lstm(lstm, inputs), (lambda out: (out[0], out[1][0][-1]))(lstm(inputs))):
        lstm.zero_grad()
        (states.data.square().sum() + last.sum()).backward()
        gradients = [weight.grad.clone() for weight in lstm.parameters()]
        results.append([pad_packed_sequence(states)[0], last, *gradients])
    for ours, at_once in zip(*results, strict=True):
        assert torch.allclose(ours, at_once, rtol=1e-4, atol=1e-5)


def test_chunks_hold_all_hours_with_little_padding() -> None:
    sizes = packed(*range(1, 120, 7), 300).batch_sizes
    chunks = chunk_sizes(sizes)
    assert torch.equal(torch.cat(chunks), sizes) and 1 < len(chunks) < 30
    for chunk in chunks:
        assert int(chunk[0]) * len(chunk) <= MAX_PADDING * int(chunk.sum())


@pytest.mark.parametrize("layers", [1, 2])
def test_the_features_at_an_hour_are_those_of_a_stay_that_ends_there(layers: int) -> None:
    encoder = LSTMEncoder(dim=8, layers=layers).eval()
    stay, last = torch.tensor([1, 0, 1, 2]), torch.tensor([47, 4, 20, 0])
    cut = [stays(5, 48, 1)[s][: hour + 1] for s, hour in zip(stay, last, strict=True)]
    expected = encoder(pack_sequence(cut, enforce_sorted=False))
    assert torch.allclose(encoder.prefix_features(packed(5, 48, 1), stay, last), expected, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_lower_then_upper_layers_are_the_forward_pass(layers: int) -> None:
    encoder, ehr = LSTMEncoder(dim=8, layers=layers).eval(), packed(5, 48, 1, 17)
    hours = encoder.encode_lower_layers(ehr, torch.arange(4), torch.tensor([5, 48, 1, 17]))
    assert hours.states.shape == (5 + 48 + 1 + 17, 8) and hours.lengths.tolist() == [5, 48, 1, 17]
    assert torch.allclose(encoder.encode_top_layer(hours), encoder(ehr), atol=1e-6)


def test_dropout_acts_between_layers_and_on_the_feature() -> None:
    encoder, ehr = LSTMEncoder(dim=64, layers=2, dropout=0.5), packed(4)
    hours = encoder.encode_lower_layers(ehr, torch.tensor([0]), torch.tensor([4]))
    kept = [encoder.encode_top_layer(hours)[0], encoder(ehr)[0]]
    evaluated = encoder.eval()(ehr)[0]
    for feature in kept:
        assert (feature == 0).any() and not torch.allclose(feature[feature != 0], 2 * evaluated[feature != 0])


@pytest.mark.parametrize("lengths", [[2, 6, 1], [3, 3], [4], [1, 1, 5, 5, 2]])
def test_states_of_stays_are_those_of_their_own_hours(lengths: list[int]) -> None:
    states = [torch.randn(hours, 4, dtype=torch.float64) for hours in lengths]
    hours = HourlyStates.of(pack_sequence(states, enforce_sorted=False))
    assert torch.allclose(hours.mean(), torch.stack([stay.mean(dim=0) for stay in states]))
    assert torch.equal(hours.last(), torch.stack([stay[-1] for stay in states]))
    number = torch.arange(len(lengths))
    assert torch.equal(hours.of_each_hour(number[:, None])[:, 0], hours.stay)
    for stay, expected in enumerate(states):
        assert torch.equal(hours.states[hours.stay == stay], expected)
    assert torch.equal(pad_packed_sequence(hours.packed())[1], torch.tensor(lengths))


def test_samples_have_the_states_of_their_first_hours() -> None:
    states = [torch.randn(hours, 4) for hours in (5, 2, 9)]
    stay, hours = torch.tensor([2, 0, 2, 1, 0]), torch.tensor([9, 1, 4, 2, 5])
    found = HourlyStates.of_prefixes(pack_sequence(states, enforce_sorted=False), stay, hours)
    for sample, (row, count) in enumerate(zip(stay, hours, strict=True)):
        assert torch.equal(found.states[found.stay == sample], states[row][:count])
        assert torch.equal(found.last()[sample], states[row][count - 1])
    assert torch.equal(pad_packed_sequence(found.packed())[1], hours)


def test_the_lstm_agrees_with_its_equations_written_out() -> None:
    encoder = LSTMEncoder(dim=4).eval()
    (stay,) = stays(6)
    weights = {name.removesuffix("_l0"): w.detach() for name, w in encoder.lstm.named_parameters()}
    hidden, cell = torch.zeros(4), torch.zeros(4)
    for hour in stay:
        gates = weights["weight_ih"] @ hour + weights["weight_hh"] @ hidden
        gates = gates + weights["bias_ih"] + weights["bias_hh"]
        enter, forget, new, leave = gates.chunk(4)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
    assert torch.allclose(encoder(pack_sequence([stay]))[0], hidden, atol=1e-6)


def test_recurrent_weights_are_orthogonal_input_weights_xavier_and_biases_zero() -> None:
    encoder = LSTMEncoder(dim=32, layers=2)
    for lstm, width in ((encoder.lstm, channel_count()), (encoder.top, 32)):
        weights = dict(lstm.named_parameters())
        recurrent, entry = weights["weight_hh_l0"], weights["weight_ih_l0"]
        assert torch.allclose(recurrent.T @ recurrent, torch.eye(32), atol=1e-5)
        limit = np.sqrt(6 / (width + 4 * 32))
        assert 0.95 * limit < entry.abs().max() <= limit
        assert not weights["bias_ih_l0"].any() and not weights["bias_hh_l0"].any()


def test_dropout_acts_in_training_alone() -> None:
    encoder = LSTMEncoder(dim=64, dropout=0.5)
    assert (encoder(packed(4)) == 0).any()
    encoder.eval()
    assert torch.equal(encoder(packed(4)), encoder(packed(4)))


def test_the_recurrence_stays_in_float32_under_autocast() -> None:
    encoder = LSTMEncoder(dim=8).eval()
    with torch.autocast("cpu", torch.bfloat16):
        inside = encoder(packed(30))
    assert inside.dtype == torch.float32 and torch.equal(inside, encoder(packed(30)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121"])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("images", [0, 1, 3])
def test_any_number_of_small_images_trains(name: str, size: int, images: int) -> None:
    encoder = CXREncoder(name).train()
    features = encoder(torch.rand(images, 1, size, size))
    assert features.shape == (images, encoder.feature_dim) and features.isfinite().all()
    features.square().sum().backward()
    gradients = [weight.grad for weight in encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients) == (images > 0)


@pytest.mark.parametrize("images", [0, 1])
def test_fewer_than_two_images_leave_the_running_statistics_alone(images: int) -> None:
    encoder = CXREncoder("resnet18").train()
    before = {name: value.clone() for name, value in encoder.named_buffers()}
    encoder(torch.rand(images, 1, 64, 64))
    assert all(torch.equal(before[name], value) for name, value in encoder.named_buffers())
    assert all(module.training for module in encoder.modules())


def test_synchronised_statistics_count_the_images_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(CXREncoder("resnet18")).train()
    monkeypatch.setattr("models.encoders.cxr.world", lambda: 2)
    monkeypatch.setattr("models.encoders.cxr.all_reduce_sum", lambda images: images + 1)  # one elsewhere
    norms = [part for part in synchronised.modules() if hasattr(part, "running_mean")]
    with synchronised.safe_batch_norm(1):
        assert all(norm.training for norm in norms)
    with synchronised.safe_batch_norm(0):
        assert not any(norm.training for norm in norms)
    assert all(norm.training for norm in norms)


def test_one_image_in_training_is_encoded_as_in_evaluation() -> None:
    encoder, image = CXREncoder("resnet18"), torch.rand(1, 1, 64, 64)
    assert torch.equal(encoder.train()(image), encoder.eval()(image))


def test_without_its_classifier_the_encoder_is_torchvisions_network() -> None:
    encoder, network = CXREncoder("resnet18").eval(), resnet18().eval()
    network.fc = torch.nn.Identity()
    for ours, theirs in zip(encoder.state_dict().values(), network.state_dict().values(), strict=True):
        theirs.copy_(ours)
    grey = torch.rand(2, 1, 64, 64)
    assert torch.allclose(encoder(grey), network(grey.repeat(1, 3, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_stages_in_turn_are_the_forward_pass_and_have_the_stated_widths(name: str) -> None:
    encoder, image = CXREncoder(name).eval(), torch.rand(2, 1, 64, 64)
    maps = encoder.prepare(image)
    for stage, width in zip(encoder.stages, encoder.stage_dims, strict=True):
        maps = stage(maps)
        assert maps.shape[1] == width
    assert torch.equal(encoder.pool(maps), encoder(image))


def test_grey_is_widened_and_not_normalised_and_not_copied_on_a_gpu() -> None:
    encoder, image = CXREncoder("resnet18"), torch.rand(2, 1, 64, 64)
    wide = encoder.prepare(image)
    assert torch.equal(wide, image.repeat(1, 3, 1, 1))
    assert wide.is_contiguous(memory_format=torch.channels_last)
    elsewhere = encoder.to("meta").prepare(image.to("meta"))
    assert elsewhere.shape == wide.shape
    assert elsewhere.untyped_storage().nbytes() == image.untyped_storage().nbytes()


def test_imagenet_weights_bring_imagenets_normalisation() -> None:
    encoder = CXREncoder("resnet18", pretrained=True, download=False)
    image = torch.rand(2, 1, 64, 64)
    expected = [(image[:, 0] - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    assert torch.allclose(encoder.prepare(image), torch.stack(expected, dim=1))


@pytest.mark.parametrize("content", [None, b"", b"a broken download"])
def test_weights_that_cannot_be_fetched_are_named_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    def no_network(*_: object) -> None:
        raise URLError("connection refused")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    path = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    fault = "is missing, and fetching it failed .*refused"
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
        fault = "is damaged: its SHA-256 does not begin with f37072fd; remove it"
    where = "fetch https://download.pytorch.org/models/resnet18-f37072fd.pth where there is a network"
    with pytest.raises(ValueError, match=rf"--pretrained: {path} {fault}.*{where} and put it there, or"):
        CXREncoder("resnet18", pretrained=True)


def test_normalisation_is_no_part_of_the_saved_weights() -> None:
    normalising = CXREncoder("resnet18", pretrained=True, download=False)
    assert normalising.state_dict().keys() == CXREncoder("resnet18").state_dict().keys()


def test_errors_name_the_flag_and_the_cure() -> None:
    with pytest.raises(ValueError, match=r"--vision_backbone vgg16.*resnet34"):
        CXREncoder("vgg16")
    with pytest.raises(ValueError, match=r"--image_size 16.*at least 32"):
        CXREncoder("resnet18")(torch.rand(2, 1, 16, 16))


def test_only_the_asked_encoders_are_built_and_by_their_configuration() -> None:
    config = EncoderConfig(ehr_dim=32, ehr_layers=2, vision_backbone="resnet18")
    assert set(build_encoders(config, ["ehr"])) == {"ehr"}
    encoders = build_encoders(config)
    assert encoders["ehr"].feature_dim == 32 and encoders["ehr"].top is not None
    assert encoders["cxr"].stage_dims == (64, 64, 128, 256, 512)


def test_all_stages_compile_as_one_graph() -> None:
    counter, encoder = CompileCounter(), CXREncoder("resnet18")
    encoder.stages.compile(backend=counter)
    for _ in range(2):
        encoder(torch.rand(2, 1, 32, 32)).sum().backward()
    assert encoder.stages.compiles and counter.frame_count == 1


def test_large_kernels_on_a_cpu_have_their_taps_outermost_and_others_are_channels_last() -> None:
    encoder = CXREncoder("resnet18")
    maps: list[torch.Tensor] = []
    encoder.stages[1].register_forward_hook(lambda *call: maps.append(call[2]))
    encoder(torch.rand(2, 1, 64, 64)).sum().backward()
    assert maps[0].is_contiguous(memory_format=torch.channels_last)
    weights = [weight for weight in encoder.parameters() if weight.dim() == 4]
    ordered = [by_taps(weight).is_contiguous() for weight in weights]
    assert ordered == [weight.numel() >= 2**16 for weight in weights]
    for order, weight in zip(ordered, weights, strict=True):
        assert weight.grad is not None
        for tensor in (weight, weight.grad):
            is_small_one = tensor.is_contiguous(memory_format=torch.channels_last)
            assert by_taps(tensor).is_contiguous() if order else is_small_one
    moved = [weight for weight in encoder.to("meta").parameters() if weight.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in moved)
