"""Turns the callbacks of transformers' Trainer into what an Observer is told of each step. It changes nothing but the count of steps."""

import time
from typing import Any

from transformers import TrainerCallback

from core.forge.step_facts import StepFacts


class StepReporter(TrainerCallback):
    """Of a HeroTrainer, of which it is a part."""

    def __init__(self, trainer: Any):
        self._trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self._trainer._began = state.global_step
        self._clock = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        trainer = self._trainer
        trainer.global_step = state.global_step
        now = time.perf_counter()
        trainer._looks.trained(now - self._clock, trainer._step_tokens)
        facts = StepFacts(
            state.global_step,
            trainer._first + state.global_step - trainer._began,
            trainer._step_loss,
            trainer._step_rate,
            trainer._step_norm,
            trainer._step_tokens,
            now - self._clock,
            trainer._step_flops,
            trainer.guard.flags,
            trainer._told,
            trainer.rolled.rolls,
        )
        if trainer._observer.after_step(facts) and not control.should_training_stop:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False
        self._clock = time.perf_counter()

    def on_evaluate(self, args, state, control, **kwargs):
        self._clock = time.perf_counter()  # a step's seconds are those of training

    on_save = on_evaluate
