"""Environments: one file for each kind of shift, generic over the dataset."""
