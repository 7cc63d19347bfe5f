"""Unified fusion: one network for samples with and without an image (Hayat et al. 2021)."""

from models.fusion.joint import Joint


class Unified(Joint):
    """The network of joint fusion, as published; the name stands for training on `--data_pairs partial`."""

    title = "unified fusion"
    data_pairs = "partial"
