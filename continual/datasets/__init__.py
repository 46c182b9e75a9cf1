"""Datasets: loaders that turn the files of a data folder into a `Dataset` of plain arrays."""

from continual.datasets.dataset import Dataset

__all__ = ["Dataset"]
