"""Estimate what teachers, trainings and generation need: money, memory, time."""
