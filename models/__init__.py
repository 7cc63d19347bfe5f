"""Tensors to tensors: encoders, heads, losses, objectives, fusions and the classifier."""
