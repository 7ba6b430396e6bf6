"""Paths that strangers name: inside the directories that were opened to them, and never through a link."""
