"""Concatenation of the EHR feature and the image feature."""

from models.fusion.linear import LinearFusion


class Concatenation(LinearFusion):
    """The EHR feature [B, 128] followed by the image feature [B, 512]; zeros for an absent image."""

    title = "the supervised classifier"
    modalities = ("ehr", "cxr")
