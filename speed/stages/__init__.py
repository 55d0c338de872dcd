"""One file per box of the paper's Figure 2. Stages meet through records and keys and do not import one another.

`asking` is what they share: rows streamed through a teacher or an engine.
"""
