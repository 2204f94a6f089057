"""The Tavern: the realm as web pages, an API and a stream of events."""
