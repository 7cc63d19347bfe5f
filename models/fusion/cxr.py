"""Chest X-ray alone."""

from models.fusion.linear import LinearFusion


class CXR(LinearFusion):
    """The image encoder's feature; zeros for a sample without an image, so that its logits are the bias."""

    modalities = ("cxr",)
