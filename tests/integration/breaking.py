"""A trial of which one rank breaks off, in a module of its own."""

from __future__ import annotations

STOPS = "os.kill(os.getpid(), signal.SIGSTOP)"
HANGS = "time.sleep(1e6)"
LEAVES = "os._exit(0)"

_MODULE = """
import os, signal, time
import tensorflow as tf
from natdgp.trial import DeepGPTrial


class Breaks(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        first = os.environ.get("DET_TRIAL_RUN_ID", "1") == "1"  # a cluster's restarts are others
        if first and int(self.model.step) == 7 and os.environ["HOROVOD_RANK"] == "1":
            {how}


class Mine(DeepGPTrial):
    def keras_callbacks(self):
        return [*super().keras_callbacks(), Breaks()]
"""


def breaking_trial(how: str) -> str:
    """A module with the trial `Mine`, of which rank 1 does so after step 7."""
    return _MODULE.format(how=how)
