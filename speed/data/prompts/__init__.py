"""What is sent to a model: templates, what their slots may hold, and the rendered text."""
