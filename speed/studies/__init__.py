"""What several runs say together: intervals, differences, and the law of scores by data size."""
