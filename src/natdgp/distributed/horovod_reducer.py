"""The reducer over Horovod's ranks: the only module that imports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf
from horovod.common.exceptions import HorovodInternalError


def lost_another_rank(error: Exception) -> bool:
    """Whether a collective failed, as it does when another rank has ended.

    Horovod's operations in TensorFlow then raise its UnknownError, as the status of a shut-down and
    of a broken connection is unknown (`ConvertStatus` in Horovod 0.28.1).
    """
    return isinstance(error, (HorovodInternalError, tf.errors.UnknownError))


class HorovodReducer:
    """Collectives over all ranks, by Gloo or NCCL; the first reducer of a process meets the others.

    Every rank has to make the same calls. Horovod matches them by name, which it takes from the
    graph unless it is given; ranks whose graphs differ, as those that share out work do, would wait
    for each other for ever, hence the names here.
    """

    def __init__(self, *, scatters: bool | None = None) -> None:
        """:param scatters: whether to use Horovod's reduce-scatter; by default with NCCL on GPUs.
        Over Gloo it takes more than twice the time of an all-reduce (docs/scaling.md).
        """
        hvd.init()  # nothing, where the process has met the others
        nccl = hvd.nccl_built() and tf.config.list_physical_devices("GPU")
        self._scatters = bool(nccl) if scatters is None else scatters
        self._arrival: Callable[[], None] | None = None

    @property
    def rank(self) -> int:
        """This process, from 0."""
        return int(hvd.rank())

    @property
    def size(self) -> int:
        """K, the number of processes."""
        return int(hvd.size())

    def total(self, tensor: tf.Tensor) -> tf.Tensor:
        """Add a tensor up over all ranks; every rank receives the same bits."""
        return hvd.allreduce(self._arrived(tensor), op=hvd.Sum)

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Give every rank the values of rank 0."""
        for number, variable in enumerate(variables):  # by number: GPflow's names are not unique
            variable.assign(hvd.broadcast(variable, root_rank=0, name=f"natdgp_{number}"))

    def gather(self, tensor: tf.Tensor) -> tf.Tensor:
        """The tensors of all ranks, stacked by rank: [K, ...]. All of one shape."""
        return hvd.allgather(self._arrived(tensor)[None], name="natdgp_gather")

    def scatter(self, tensor: tf.Tensor) -> tf.Tensor:
        """Of [K, ...], added up over all ranks, the row that is this rank's."""
        tensor = self._arrived(tensor)
        if self._scatters:
            return hvd.reducescatter(tensor, op=hvd.Sum, name="natdgp_scatter")[0]
        return hvd.allreduce(tensor, op=hvd.Sum, name="natdgp_scatter")[self.rank]

    def announce(self, arrival: Callable[[], None]) -> None:
        """Have a function called whenever this rank has its part and begins to wait for others'.

        To be called before graphs with collectives are traced.
        """
        self._arrival = arrival

    def _arrived(self, tensor: tf.Tensor) -> tf.Tensor:
        """The same tensor, known to whoever wants to know."""
        if (arrival := self._arrival) is None:
            return tensor

        def note(_: object) -> np.bool_:
            arrival()
            return np.True_

        noted = tf.numpy_function(note, [tf.reshape(tensor, [-1])[:1]], tf.bool)
        with tf.control_dependencies([noted]):
            return tf.identity(tensor)
