"""One file per box of the paper's Figure 2. Stages meet through records and keys; they do not import one another."""
