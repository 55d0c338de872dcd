"""One file per box of the paper's Figure 2. Stages meet through records and keys and do not import one another.

They share `base`, `asking` (rows through a teacher) and `generating` (rows through an engine).
"""
