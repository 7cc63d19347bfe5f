"""Settings of all tests. Hypothesis has no deadline, because a busy machine would fail a slow example."""

from hypothesis import Phase, settings

settings.register_profile("untimed", deadline=None)
# For make mutation: any failing example kills a mutant, and nobody reads it, so none is shrunk or stored.
settings.register_profile("mutants", deadline=None, database=None, phases=(Phase.explicit, Phase.generate))
settings.load_profile("untimed")
