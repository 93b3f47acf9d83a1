"""Predictions against references. Imports no torch."""
