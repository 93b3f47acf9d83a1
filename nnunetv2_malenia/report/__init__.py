"""A run's answers as one HTML file. Imports no torch."""
