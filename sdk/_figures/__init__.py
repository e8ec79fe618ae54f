"""Figures of the calls of a cluster, from the metrics that Ray exports: for `sdk top` and the consoles."""
