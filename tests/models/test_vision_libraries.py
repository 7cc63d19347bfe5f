"""Features of the families' own libraries on the same pixels; skips where a library is not installed.

None of them is a dependency. To run this: pip install transformers torchxrayvision open_clip_torch, and
hi-ml-multimodal without its dependencies, with pydicom and SimpleITK.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models as torchvision_models

from models.encoders import vision
from tests.models.test_vision import images, loaded, randomise, shallow, written


def test_rad_dino_is_the_dinov2_of_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    shallow(monkeypatch, "rad-dino", lambda: vision._timm("vit_base_patch14_dinov2", img_size=518, depth=2))
    model = transformers.Dinov2Model(
        transformers.Dinov2Config(image_size=518, patch_size=14, num_hidden_layers=2)
    )
    randomise(model).save_pretrained(tmp_path)
    encoder, message = loaded("rad-dino", tmp_path / "model.safetensors")
    assert message.startswith("cxr_encoder: 34/34 tensors")
    processor = transformers.BitImageProcessorPil(
        do_resize=True, size={"shortest_edge": 518}, crop_size={"height": 518, "width": 518},
        image_mean=[0.5307] * 3, image_std=[0.2583] * 3, do_convert_rgb=True,
    )  # fmt: skip
    grey = (255 * images(518, 1)[0, 0]).round().byte().numpy()
    pixels = processor(np.stack([grey] * 3, axis=-1), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(pixels).pooler_output
    mine = encoder(torch.from_numpy(grey)[None, None] / 255)
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("xrv-densenet121", 224), ("xrv-resnet50-512", 512)])
def test_torchxrayvisions_features_are_its_own(tmp_path: Path, name: str, size: int) -> None:
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision is not installed")
    grey = (255 * images(size, 1)[0, 0]).round().byte().numpy()
    pixels = torch.from_numpy(xrv.utils.normalize(grey, 255)[None, None]).float()
    if name == "xrv-densenet121":
        model = randomise(xrv.models.DenseNet(weights=None))
        expected = model.features2(pixels)
        tensors = 725
    else:
        model = xrv.models.ResNet.__new__(xrv.models.ResNet)
        torch.nn.Module.__init__(model)
        network = torchvision_models.resnet50(num_classes=18)
        network.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        model.model = network
        randomise(model)
        expected = model.features(pixels)
        tensors = 318
    encoder, message = loaded(name, written(tmp_path / "xrv.pt", model.state_dict()))
    assert message.startswith(f"cxr_encoder: {tensors}/{tensors} tensors")
    torch.testing.assert_close(
        encoder(torch.from_numpy(grey)[None, None] / 255), expected, rtol=1e-5, atol=1e-5
    )


def test_chexzero_is_the_clip_of_openai(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    model = randomise(open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).float())
    encoder, message = loaded("chexzero", written(tmp_path / "clip.pt", model.state_dict()))
    assert message.startswith("cxr_encoder: 152/152 tensors")
    x = images(224)
    with torch.no_grad():
        expected = model.encode_image(((255 * x - 101.48761) / 83.43944).expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:Importing from timm.models.layers:FutureWarning")
def test_biovil_t_is_the_image_encoder_of_hi_ml_multimodal(tmp_path: Path) -> None:
    pytest.importorskip("health_multimodal", reason="hi-ml-multimodal is not installed")
    from health_multimodal.image.model.encoder import get_encoder_from_type

    model = randomise(get_encoder_from_type("resnet50_multi_image")).eval()
    state = {f"encoder.{name}": tensor for name, tensor in model.state_dict().items()}
    encoder, message = loaded("biovil-t", written(tmp_path / "biovil_t.pt", state))
    assert message.startswith("cxr_encoder: 320/320 tensors")
    x = images(448, 1)
    with torch.no_grad():
        expected = model(x.expand(-1, 3, -1, -1))
    assert expected[:, :256].abs().max() > 1
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)
