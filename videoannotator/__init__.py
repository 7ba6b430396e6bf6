"""A headless engine that annotates videos of behaviour: scenes, faces, voices, in the field's standard formats."""

__version__ = "0.1.0"
