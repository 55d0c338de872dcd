"""The other machines of a cluster: Ray starts there the workers that the scheduler starts here."""
