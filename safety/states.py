"""The states of a service and the changes that are legal; it knows nothing about processes."""

from enum import StrEnum


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"  # begun, not heard of yet
    RUNNING = "running"
    BACKOFF = "backoff"  # died, waits for its next start
    FAILED = "failed"  # died too often; stays down until the realm is started anew
    OFF = "off"  # not wanted


NEXT = {
    State.OFF: {State.STARTING},
    State.STOPPED: {State.STARTING},
    State.STARTING: {State.RUNNING, State.BACKOFF, State.FAILED, State.STOPPED, State.OFF},
    State.RUNNING: {State.BACKOFF, State.FAILED, State.STOPPED, State.OFF},
    State.BACKOFF: {State.STARTING, State.BACKOFF, State.FAILED, State.STOPPED, State.OFF},
    State.FAILED: {State.STOPPED},
}


def change(old: State, new: State) -> State:
    """`new`, if a service may go there from `old`."""
    assert new in NEXT[old], f"a service cannot go from {old} to {new}"
    return new
