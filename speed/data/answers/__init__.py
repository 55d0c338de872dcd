"""What comes back from a model: its JSON, the record that it holds, or the cause of its rejection."""
