"""Image encoders that were trained elsewhere, by name: what they expect of an image, and what they saw.

Their weights come from a file (--cxr_weights). The table needs no torch, so that checks of flags are fast.
"""

from __future__ import annotations

from dataclasses import dataclass

PUBLISHED_CROP = 224 / 256  # part of the shorter side that the published views show
TIMM = "timm/"  # prefix of a name that torchvision has too
# What `cxr_weights` of a checkpoint may say, beside `weights_label` of weights from elsewhere:
RANDOM_WEIGHTS, IMAGENET_WEIGHTS = "random", "imagenet"
NO_ENCODER = "none"  # there is no image encoder
UNKNOWN_WEIGHTS = "unknown"  # it is of a version that did not record them


@dataclass(frozen=True)
class Family:
    """An encoder with its own preprocessing.

    title: what it is. size: side of its input in pixels. crop: part of the shorter side of an image that its
    input shows; 0: the whole image, on black. mean, std: normalisation of grey values from 0 to 1. channels:
    1, or 3 equal ones. saw_mimic_cxr: whether MIMIC-CXR was among its training images; None: not known, or of
    some of its files. network: its Network, as "module:name"; "" if models/encoders/vision.py has it.
    """

    title: str
    size: int
    crop: float
    mean: float
    std: float
    channels: int
    saw_mimic_cxr: bool | None
    network: str = ""

    @property
    def note(self) -> str:
        """What tables say of its training images."""
        return {True: "saw MIMIC-CXR", None: "may have seen MIMIC-CXR", False: ""}[self.saw_mimic_cxr]


GREY_SCALE = 0.5, 1 / 2048  # torchxrayvision's (2 x - 1) 1024, for x from 0 to 1
EVA_X_SCALE = 0.49185, 0.28509
CHEXZERO_SCALE = 101.48761 / 255, 83.43944 / 255

FAMILIES = {
    "rad-dino": Family("RAD-DINO (DINOv2 ViT-B/14)", 518, 1.0, 0.5307, 0.2583, 3, True),
    "xrv-densenet121": Family("torchxrayvision's DenseNet-121", 224, 1.0, *GREY_SCALE, 1, None),
    "xrv-resnet50-512": Family("torchxrayvision's ResNet-50", 512, 1.0, *GREY_SCALE, 1, None),
    "biovil-t": Family("the image part of BioViL-T (ResNet-50)", 448, 448 / 512, 0.0, 1.0, 3, True),
    "chexzero": Family("CheXzero (CLIP ViT-B/32)", 224, 0.0, *CHEXZERO_SCALE, 3, True),
    "eva-x-tiny": Family("EVA-X, tiny", 224, 1.0, *EVA_X_SCALE, 3, None),
    "eva-x-small": Family("EVA-X, small", 224, 1.0, *EVA_X_SCALE, 3, None),
    "eva-x-base": Family("EVA-X, base", 224, 1.0, *EVA_X_SCALE, 3, None),
}


def weights_label(backbone: str) -> str:
    """Return what tables call the weights of an encoder that are from elsewhere.

    >>> weights_label("rad-dino"), weights_label("resnet34")
    ('rad-dino (saw MIMIC-CXR)', 'external')
    """
    if backbone not in FAMILIES:
        return "external"
    note = FAMILIES[backbone].note
    return f"{backbone} ({note})" if note else backbone


def check_image_size(backbone: str, image_size: int) -> None:
    """Raise ValueError if an image encoder of a family reads images of another size."""
    family = FAMILIES.get(backbone)
    if family and image_size != family.size:
        raise ValueError(
            f"--image_size {image_size}: --vision_backbone {backbone} reads images of {family.size} pixels; "
            f"use --image_size {family.size}"
        )
