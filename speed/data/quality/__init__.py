"""Check examples without a model: guidelines, near duplicates, contamination, edits."""
