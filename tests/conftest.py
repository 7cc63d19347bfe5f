"""What holds for all tests: Hypothesis does not time them, as a busy machine would fail a slow example."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
