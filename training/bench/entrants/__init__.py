"""The contestants' own processes: a file each, whose `run(task, stopwatch)` trains and returns the model."""
