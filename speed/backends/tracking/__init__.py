"""Mirrors of the run's own files."""
