"""What teachers, trainings and generation cost: prices, memory, time."""
