"""Agents: one file for each method."""
