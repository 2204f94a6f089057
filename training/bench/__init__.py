"""Benches: they measure what the realm promises. Only `entrants/` may load torch, each run in a process of its own."""
