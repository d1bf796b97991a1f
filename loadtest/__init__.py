"""Measures any server of the Open Inference Protocol v2. Knows no model code."""
