"""The error of a training that diverged, which a search counts as a trial that failed."""


class NotFinite(ValueError):
    """The loss is NaN or infinite."""
