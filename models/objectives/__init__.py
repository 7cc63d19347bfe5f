"""Pretraining objectives: modules that take a Batch and return {"loss": ..., terms}; one file each."""
