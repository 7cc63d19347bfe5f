"""Both features side by side."""

from models.fusion.linear import LinearFusion


class Concatenation(LinearFusion):
    """EHR feature [B, 128], then image feature [B, 512], zeros for an absent image."""

    modalities = ("ehr", "cxr")
