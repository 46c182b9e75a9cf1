"""The command line: all of Hydra. No other room imports it."""
