"""The inside of a training step: packing, attention, loss, evaluation, state. Needs torch; knows no queue and no ledger."""
