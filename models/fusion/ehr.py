"""EHR alone."""

from models.fusion.linear import LinearFusion


class EHR(LinearFusion):
    """The EHR feature; images are ignored."""

    title = "the supervised classifier"
    modalities = ("ehr",)
