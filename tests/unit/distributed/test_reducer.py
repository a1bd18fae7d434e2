import numpy as np
import tensorflow as tf

from natdgp.distributed.reducer import OneProcess


def test_one_process_is_all_ranks_together() -> None:
    alone, own = OneProcess(), tf.reshape(tf.range(6, dtype=tf.int64), [2, 3])
    assert (alone.rank, alone.size) == (0, 1)
    assert alone.total(own) is own
    gathered = alone.gather(own)
    assert gathered.dtype == tf.int64
    np.testing.assert_array_equal(gathered, own.numpy()[None])
    np.testing.assert_array_equal(alone.scatter(gathered), own)
    variable = tf.Variable(1.5)
    alone.broadcast([variable])
    assert float(variable) == 1.5
