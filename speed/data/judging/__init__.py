"""How lists of candidates are judged, and what the judge's habits are."""
