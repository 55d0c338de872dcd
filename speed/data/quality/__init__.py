"""What can be checked of examples without a model: guidelines, repeats, contamination, edits."""
