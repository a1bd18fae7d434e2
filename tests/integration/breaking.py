"""Trials that break down, each in a module of its own."""

from __future__ import annotations

STOPS = "os.kill(os.getpid(), signal.SIGSTOP)"
HANGS = "time.sleep(1e6)"
LEAVES = "os._exit(0)"

_MODULE = """
import os, signal, time
import tensorflow as tf
from natdgp.determined import DeepGPTrial


def break_off():
    first = os.environ.get("DET_TRIAL_RUN_ID", "1") == "1"  # a cluster's restarts are others
    if first and os.environ["HOROVOD_RANK"] == "1":
        {how}
    return True


class Breaks(tf.keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if {in_callback} and int(self.model.step) == 7:
            break_off()


class Mine(DeepGPTrial):
    def keras_callbacks(self):
        return [Breaks()]

    def build_training_data_loader(self):
        batches = super().build_training_data_loader()
        if {in_callback}:
            return batches

        def hold(number, batch):
            late = tf.numpy_function(lambda n: bool(n == 7 and break_off()), [number], tf.bool)
            with tf.control_dependencies([late]):
                return tf.nest.map_structure(tf.identity, batch)

        return batches.enumerate().map(hold)
"""


def breaking_trial(how: str, *, in_callback: bool = True) -> str:
    """A module with the trial `Mine`, of which rank 1 does so after step 7, in its first run.

    :param in_callback: else where the eighth batch is read.
    """
    return _MODULE.format(how=how, in_callback=in_callback)


_SPOILT = """
import tensorflow as tf
from natdgp.determined import DeepGPTrial


def spoil(batches, name, number, rows):
    def one(index, batch):
        wrong = tf.reshape(tf.cast(index == number, tf.bool), [1, 1])
        wrong &= tf.range(tf.shape(batch[name])[0])[:, None] >= rows
        spoilt = tf.where(wrong, tf.cast({value}, batch[name].dtype), batch[name])
        return {{**batch, name: spoilt}}

    return batches.enumerate().map(one)


class Mine(DeepGPTrial):
    def {loader}(self):
        batches = super().{loader}()
        if self.context.distributed.rank == self.context.distributed.size - 1:
            batches = spoil(batches, "{name}", {number}, 3)
        return batches
"""


def spoiling_trial(loader: str, name: str, value: str, number: int) -> str:
    """A module with the trial `Mine`, a loader of which gives wrong numbers on the last rank.

    :param name: of a batch's tensor, which is wrong from row 3 on.
    :param value: the wrong number, as Python writes it.
    :param number: of the batch that has it.
    """
    return _SPOILT.format(loader=loader, name=name, value=f'float("{value}")', number=number)
