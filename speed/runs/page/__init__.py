"""The page of a run or a study: one HTML file that holds everything it shows and asks nobody for anything."""
