"""The Tavern, metrics and GPU readings. Imports management and core."""
