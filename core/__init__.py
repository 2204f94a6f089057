"""Quests, queue, hero, skills and the forge. Imports no other room."""
