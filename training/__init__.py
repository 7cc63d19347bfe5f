"""How networks are trained: the loop, optimisers, pretraining, classifiers, probes, and epoch selection."""
