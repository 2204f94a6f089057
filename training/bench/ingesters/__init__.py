"""The ways from rows to tokens that `bench ingest` compares, each in a process of its own: `run(rows, work)`."""
