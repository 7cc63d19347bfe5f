"""ResNets are those of torchvision: the same names, the same weights from a seed, the same gradients."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from models.encoders import CXREncoder, cxr
from models.encoders.resnet import RESNETS, resnet


def both(name: str) -> tuple[nn.Module, nn.Module]:
    """Return our network and torchvision's, drawn with the same seed."""
    networks = []
    for build in (resnet, torchvision_models.get_model):
        torch.manual_seed(3)
        networks.append(build(name))
    return networks[0], networks[1]


def test_every_resnet_and_densenet_of_torchvision_is_known() -> None:
    listed = torchvision_models.list_models(module=torchvision_models, include=["*resne*", "densenet*"])
    assert listed == [*cxr.BACKBONES]


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_has_the_parts_of_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = both(name)
    assert [part for part, _ in ours.named_modules()] == [part for part, _ in theirs.named_modules()]
    for (name, tensor), (their_name, their_tensor) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert (name, tensor.shape) == (their_name, their_tensor.shape)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_a_seed_draws_the_weights_of_torchvisions_which_learn_alike(name: str) -> None:
    networks = both(name)
    images = torch.rand(2, 3, 64, 64)
    outputs = [network(images) for network in networks]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for weight, their_weight in zip(*(network.parameters() for network in networks), strict=True):
        assert torch.equal(weight, their_weight) and torch.equal(weight.grad, their_weight.grad)
    for tensor, their_tensor in zip(*(network.buffers() for network in networks), strict=True):
        assert torch.equal(tensor, their_tensor)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_imagenets_weights_are_read_from_pytorchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    network = torchvision_models.get_model(name)
    state = {old_name(tensor_name): tensor for tensor_name, tensor in network.state_dict().items()}
    url = torchvision_models.get_model_weights(name).DEFAULT.url
    path = tmp_path / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir()
    torch.save({name: t for name, t in state.items() if "num_batches" not in name}, path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(cxr, "sha256", lambda path: path.stem.rpartition("-")[2])
    encoder = CXREncoder(name, pretrained=True).eval()
    expected = cxr.stages_of(network.eval())
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(encoder.maps(images), expected(encoder.prepare(images)), rtol=1e-4, atol=1e-5)


def old_name(name: str) -> str:
    """Return what the files of torchvision's DenseNets call a tensor."""
    for part in ("norm", "conv"):
        for number in "12":
            old = f"{part}.{number}." if "denselayer" in name else f"{part}{number}."
            name = name.replace(f"{part}{number}.", old)
    return name
