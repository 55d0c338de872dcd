"""mteb: its tasks and a folder of tasks, run one by one on anything that encodes (paper §4.2)."""
