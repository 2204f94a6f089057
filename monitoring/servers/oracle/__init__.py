"""The local Oracle: OpenAI's chat interface over the models of this realm."""
