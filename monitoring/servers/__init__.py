"""Servers of the monitoring room."""
