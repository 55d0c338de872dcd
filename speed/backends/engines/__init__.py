"""Generators on disk and in memory, and the engines that write texts with them."""
