"""Make the texts that are sent to a model: templates, values of their slots, rendering."""
