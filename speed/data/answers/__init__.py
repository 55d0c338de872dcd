"""Read the answers of models: find their JSON, parse it into a record, or reject it with a cause."""
