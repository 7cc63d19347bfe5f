"""Vision encoders: names, preprocessing and weights of timm and of families that were trained elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.encoders import CXREncoder, EncoderConfig, VisionEncoder, build_encoders, load_external, vision
from models.encoders.families import FAMILIES, weights_label
from utils.state_dict import read_state_dict

TINY = "vit_tiny_patch16_224"


def images(size: int, count: int = 2) -> Tensor:
    """Grey images in [0, 1]."""
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def randomise(network: nn.Module) -> nn.Module:
    """Give all tensors values of which none is 0 or 1, so that a mistaken name shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(0.05 * torch.randn_like(tensor) + (0.5 if tensor.ndim == 1 else 0.0))
    return network.eval()


def written(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path)
    return path


def loaded(name: str, path: Path) -> tuple[VisionEncoder, str]:
    """A new encoder with the weights of a file, and what loading them says."""
    encoder = VisionEncoder(name)
    message = load_external(encoder, name, path)
    return encoder.eval(), message


def test_a_network_of_timm_gives_its_features_with_its_normalisation(tmp_path: Path) -> None:
    import timm

    network = randomise(timm.create_model(TINY, num_classes=10))
    encoder, message = loaded(TINY, written(tmp_path / "tiny.pth", network.state_dict()))
    assert message == "cxr_encoder: 150/150 tensors, 1,930 numbers of other parts left out"
    mean, std = (torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    x = images(224)
    expected = network.forward_head(network.forward_features((x - mean) / std), pre_logits=True)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)
    assert encoder(x).shape == (2, encoder.feature_dim) and encoder.maps(x).shape == (2, 192, 14, 14)
    assert encoder(x[:0]).shape == (0, 192)
    with pytest.raises(ValueError, match=r"--image_size 64: .* of 224 pixels; use --image_size 224"):
        encoder(images(64))


def test_the_prefix_of_parallel_training_is_removed_and_said(tmp_path: Path) -> None:
    import timm

    network = randomise(timm.create_model(TINY, num_classes=0))
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    encoder, message = loaded(TINY, written(tmp_path / "tiny.pth", state))
    assert message == "cxr_encoder: 150/150 tensors, the prefix module. of all names removed"
    assert torch.equal(encoder.network.state_dict()["cls_token"], network.state_dict()["cls_token"])


def test_what_torchvision_and_timm_both_have_is_torchvisions_unless_timm_is_named() -> None:
    for name, kind in (("resnet18", CXREncoder), ("timm/resnet18", VisionEncoder), (TINY, VisionEncoder)):
        config = EncoderConfig(vision_backbone=name)
        encoder = build_encoders(config, ("cxr",))["cxr"]
        assert type(encoder) is kind
    with pytest.raises(ValueError, match=r"no ResNet.*did you mean vit_tiny_patch16_224\?"):
        VisionEncoder("vit_tiny_patch16_225")
    with pytest.raises(ValueError, match=r"--pretrained.*give a file with --cxr_weights"):
        build_encoders(EncoderConfig(vision_backbone=TINY, pretrained=True), ("cxr",))


def test_a_convolutional_network_of_timm_reads_any_size_and_a_single_image_in_training() -> None:
    encoder = VisionEncoder("timm/resnet18")
    assert encoder(images(32, 1)).shape == (1, 512) and encoder.maps(images(64)).shape == (2, 512, 2, 2)
    assert encoder.size == 224 and encoder.crop == pytest.approx(0.95)


def test_fusions_between_stages_say_which_encoders_have_some() -> None:
    encoder = VisionEncoder("timm/resnet18")
    with pytest.raises(ValueError, match=r"timm/resnet18 has no stages.*of torchvision"):
        _ = encoder.stage_dims


@pytest.mark.parametrize("name", FAMILIES)
def test_what_tables_say_of_a_family_is_what_it_saw(name: str) -> None:
    note = {True: "(saw MIMIC-CXR)", None: "(may have seen MIMIC-CXR)", False: name}[
        FAMILIES[name].saw_mimic_cxr
    ]
    assert weights_label(name).startswith(name) and note in weights_label(name)


def test_every_family_has_a_network() -> None:
    assert set(FAMILIES) == set(vision.NETWORKS)


def shallow(monkeypatch: pytest.MonkeyPatch, name: str, build: Callable[[], nn.Module]) -> None:
    """Build a family's network with fewer layers, which have the same names."""
    monkeypatch.setitem(vision.NETWORKS, name, vision.NETWORKS[name]._replace(build=build))


def test_grey_values_of_torchxrayvision_reach_from_minus_to_plus_1024(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = VisionEncoder("xrv-densenet121")
    x = torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1, 1).expand(3, 1, 224, 224)
    assert encoder.prepare(x)[:, 0, 0, 0].tolist() == [-1024.0, -512.0, 1024.0]


def test_tensors_that_are_missing_or_of_another_network_are_named(tmp_path: Path) -> None:
    import timm

    state = timm.create_model(TINY).state_dict()
    del state["blocks.3.norm1.weight"]
    with pytest.raises(ValueError, match=r"missing blocks.3.norm1.weight"):
        loaded(TINY, written(tmp_path / "tiny.pth", state))
    with pytest.raises(ValueError, match=r"does not fit: missing cls_token"):
        loaded(TINY, written(tmp_path / "other.pth", {"a": torch.ones(1)}))


def test_dinov2_names_of_rad_dino_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build() -> nn.Module:
        return vision._timm("vit_base_patch14_dinov2", img_size=518, depth=1)

    shallow(monkeypatch, "rad-dino", build)
    network = randomise(build())
    state = network.state_dict() | {"mask_token": torch.zeros(1, 768)}
    encoder, message = loaded("rad-dino", written(tmp_path / "backbone_compatible.pt", state))
    assert message == "cxr_encoder: 20/20 tensors, 768 numbers of other parts left out"
    x = images(518, 1)
    expected = network(((x - 0.5307) / 0.2583).expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)


def clip_names(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a CLIP image tower by OpenAI's names, and one of the text."""
    inverse = {new: old for old, new in vision.CLIP_NAMES.items() if old not in ("ln_", "ln_post", "ln_pre")}
    state = {}
    for name, tensor in network.state_dict().items():
        old = name.replace("norm_pre", "ln_pre").replace("norm1", "ln_1").replace("norm2", "ln_2")
        old = old.replace("norm.", "ln_post.")
        for new, original in inverse.items():
            old = old.replace(new, original)
        state[f"visual.{old}"] = tensor
    state["visual.proj"] = state.pop("visual.head.weight").T
    state["visual.class_embedding"] = state["visual.class_embedding"].flatten()
    state["visual.positional_embedding"] = state["visual.positional_embedding"][0]
    return state | {"token_embedding.weight": torch.zeros(3, 3)}


def test_the_image_tower_of_a_clip_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build() -> nn.Module:
        network = vision._timm("vit_base_patch32_clip_quickgelu_224", num_classes=512, depth=1)
        network.head = nn.Linear(768, 512, bias=False)
        return network

    shallow(monkeypatch, "chexzero", build)
    network = randomise(build())
    encoder, message = loaded("chexzero", written(tmp_path / "clip.pt", clip_names(network)))
    assert message.startswith("cxr_encoder: 20/20 tensors, 9 numbers")
    x = images(224)
    expected = network(((255 * x - 101.48761) / 83.43944).expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)


def test_the_image_part_of_biovil_t_is_read(tmp_path: Path) -> None:
    network = randomise(vision.BioViLT())
    state = {f"encoder.{name}": tensor for name, tensor in network.state_dict().items()}
    others = {"encoder.vit_pooler.type_embed": torch.zeros(2), "projector.model.0.weight": torch.zeros(2)}
    encoder, message = loaded("biovil-t", written(tmp_path / "biovil_t.pt", state | others))
    assert message == "cxr_encoder: 320/320 tensors, 4 numbers of other parts left out"
    maps, x = images(448, 1).expand(-1, 3, -1, -1), images(448, 1)
    trunk = network.encoder
    for child in (
        trunk.conv1,
        trunk.bn1,
        trunk.relu,
        trunk.maxpool,
        *(getattr(trunk, f"layer{i}") for i in "1234"),
    ):
        maps = child(maps)
    image = nn.functional.conv2d(maps, network.backbone_to_vit.weight).mean((2, 3))
    expected = torch.cat([image, network.missing_previous_emb.view(1, 256)], dim=1)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)


def test_eva_x_is_read_without_its_pretraining_head(tmp_path: Path) -> None:
    network = randomise(vision._eva_x(192, 3))
    inverse = {new: old for old, new in vision.EVA_NAMES.items()}
    state = {
        name.replace("fc_norm", "norm")
        if name.startswith("fc_norm")
        else vision._renamed(name, inverse): tensor
        for name, tensor in network.state_dict().items()
    }
    head = {"mask_token": torch.zeros(1), "lm_head.weight": torch.zeros(1), "rope.freqs": torch.zeros(1)}
    path = tmp_path / "eva_x.pt"
    torch.save({"module": state | head}, path)
    encoder, message = loaded("eva-x-tiny", path)
    assert message.endswith("tensors, 3 numbers of other parts left out")
    x = images(224)
    expected = network(((x - 0.49185) / 0.28509).expand(-1, 3, -1, -1))
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)
    assert len(read_state_dict(path)) == len(state) + 3
