"""EHR alone."""

from models.fusion.linear import LinearFusion


class EHR(LinearFusion):
    """The EHR encoder's feature; images are not looked at."""

    modalities = ("ehr",)
