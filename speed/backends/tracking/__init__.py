"""Trackers: copies of a run's figures in other programs."""
