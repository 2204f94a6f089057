"""The door: command line and processes. The only room that imports every other."""
