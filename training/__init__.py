"""The door: command line and processes. The only room that imports every other."""

import os

# Looking for pydantic plugins reads the metadata of every installed package, a tenth of what a short command takes.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
