"""Chest X-ray alone."""

from models.fusion.linear import LinearFusion


class CXR(LinearFusion):
    """The image feature; zeros without an image, so that the logits of such a sample are the bias."""

    title = "the supervised classifier"
    modalities = ("cxr",)
