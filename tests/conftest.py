"""What holds for all tests: Hypothesis does not time them, as a busy machine would fail a slow example."""

from hypothesis import Phase, settings

settings.register_profile("untimed", deadline=None)
# For make mutation: a mutant is killed by any example, which nobody will read.
settings.register_profile("mutants", deadline=None, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("untimed")
