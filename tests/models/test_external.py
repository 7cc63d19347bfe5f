"""Weights from elsewhere: torchvision's state dicts load strictly, whatever file they come in."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision import models as torchvision_models

from models.classifier import ClassifierConfig, start_classifier
from models.encoders import CXREncoder, EncoderConfig, load_external
from tests.models.test_resnet import old_name
from utils.checkpoint import save
from utils.state_dict import read_state_dict

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.int64: "I64"}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A ResNet-18 of torchvision with random weights and statistics."""
    torch.manual_seed(0)
    network = torchvision_models.resnet18(weights=None).eval()
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return network


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Write the format by its description: length of the header, header, tensors."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = tensor.contiguous().numpy().tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "form", ["pth", "legacy", "safetensors", "wrapped", "prefixed", "no counters", "half"]
)
def test_features_are_those_of_the_network(network: torch.nn.Module, tmp_path: Path, form: str) -> None:
    state = network.state_dict()
    if form == "safetensors":
        path = write_safetensors(tmp_path / "model.safetensors", state)
    elif form == "half":
        half = {
            name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()
        }
        path = write_safetensors(tmp_path / "model.safetensors", half)
    elif form == "legacy":
        path = tmp_path / "model.pth"
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        prefixed = {f"module.backbone.{name}": tensor for name, tensor in state.items()}
        uncounted = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
        contents = {"pth": state, "prefixed": prefixed, "no counters": uncounted}
        path = write(tmp_path / "model.pth", contents.get(form, {"state_dict": state, "epoch": 3}))
    encoder = CXREncoder("resnet18", pretrained=True, download=False).eval()
    message = "cxr_encoder: 120/120 tensors, 513,000 numbers of other parts left out"  # the classifier
    prefix = ", the prefix module.backbone. of all names removed" if form == "prefixed" else ""
    assert load_external(encoder, "resnet18", path) == message + prefix
    images = torch.rand(2, 1, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images.expand(-1, 3, -1, -1) - mean[:, None, None]) / std[:, None, None]
    network.fc, fc = torch.nn.Identity(), network.fc
    expected = network(normalised)
    network.fc = fc
    tolerance = {"rtol": 0.02, "atol": 0.02} if form == "half" else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(encoder(images), expected, **tolerance)


@pytest.mark.parametrize("names", ["today's", "of torchvision's files"])
def test_a_densenet_loads_too(tmp_path: Path, names: str) -> None:
    state = torchvision_models.densenet121(weights=None).state_dict()
    if names != "today's":
        state = {old_name(name): tensor for name, tensor in state.items()}
    path = write(tmp_path / "densenet.pt", state)
    encoder = CXREncoder("densenet121", download=False)
    assert load_external(encoder, "densenet121", path).startswith("cxr_encoder: 725/725")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), r"missing layer1.0.conv1.weight$"),
        (lambda state: state.update(extra=torch.ones(1)), r"unexpected extra"),
        (
            lambda state: state.update({"conv1.weight": torch.ones(64, 1, 7, 7)}),
            r"conv1.weight is \[64, 1, 7, 7\]",
        ),
        (
            lambda state: state.update({"bn1.weight": torch.full((64,), torch.nan)}),
            "bn1.weight has numbers that",
        ),
    ],
)
def test_every_tensor_must_fit(
    network: torch.nn.Module, tmp_path: Path, change: object, message: str
) -> None:
    state = dict(network.state_dict())
    change(state)
    with pytest.raises(ValueError, match=message):
        load_external(CXREncoder("resnet18"), "resnet18", write(tmp_path / "model.pth", state))


def test_files_that_are_no_state_dict_are_refused(tmp_path: Path, network: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="refused, as it holds more than tensors"):
        read_state_dict(write(tmp_path / "module.pt", network))
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state_dict(write(tmp_path / "list.pt", [torch.ones(1)]))
    save(tmp_path / "ours.pt", {"parts": {}, "config": {}, "epoch": 0})
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state_dict(tmp_path / "ours.pt")
    with pytest.raises(FileNotFoundError, match=r"gone.pth: there is no such file of weights"):
        read_state_dict(tmp_path / "gone.pth")
    whole = write_safetensors(tmp_path / "whole.safetensors", {"x": torch.ones(3)}).read_bytes()
    for name, data in {
        "cut": whole[:-1],
        "header": whole[:20],
        "empty": b"",
        "text": b"weights, " * 9,
    }.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        (tmp_path / f"{name}.pth").write_bytes(data)
        for suffix in ("safetensors", "pth"):
            with pytest.raises(ValueError, match=r"damaged|refused"):
                read_state_dict(tmp_path / f"{name}.{suffix}")


def test_a_classifier_that_starts_from_them_is_external(network: torch.nn.Module, tmp_path: Path) -> None:
    path = write(tmp_path / "model.pth", network.state_dict())
    config = ClassifierConfig("cxr", "binary", 1, EncoderConfig(vision_backbone="resnet18"))
    classifier, built = start_classifier(config, {"cxr": str(path)})
    assert (built.objective, built.checkpoint, built.encoders.pretrained) == ("external", str(path), True)
    loaded = classifier.parts()["cxr_encoder"].state_dict()["stages.0.0.weight"]
    assert torch.equal(loaded, network.conv1.weight)
    message = (
        r"^\S+model.pth does not fit --vision_backbone resnet34; give the file's backbone, or another file: "
    )
    with pytest.raises(ValueError, match=message) as caught:
        start_classifier(ClassifierConfig("cxr", "binary", 1, EncoderConfig()), {"cxr": str(path)})
    assert str(caught.value).endswith("layer1.2.bn1.bias and 77 more") and len(str(caught.value)) < 500
