"""Evaluation with mteb (paper §4.2): its tasks, or a folder of tasks, on anything that turns texts into vectors."""
