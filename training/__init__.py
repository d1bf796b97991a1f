"""Training: a recipe and a data set become an artifact, a SavedModel with proof of its accuracy.

Imports only `ridgeline`; hands over files (see `training.artifact`), never Python objects.
"""
