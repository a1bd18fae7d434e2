"""Tensors of several batches packed into one vector that can be added up, weights included."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def packed_sum(means: Sequence[tf.Tensor], examples: tf.Tensor) -> tf.Tensor:
    """Per-example means as one vector of sums over examples, the number of examples last.

    :param means: of any shapes and one float type.
    :param examples: scalar, the number of examples behind each.
    :returns: [T + 1], T being the number of elements of all means. Vectors of several batches, and
        of several ranks, may be added: one collective reduces all there is.
    """
    weight = tf.reshape(tf.cast(examples, means[0].dtype), [1])
    vector = tf.concat([tf.reshape(mean, [-1]) for mean in means], axis=0)
    return tf.concat([vector * weight, weight], axis=0)


def unpacked_means(vector: tf.Tensor, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The means of all examples behind a sum of :func:`packed_sum` vectors.

    :param like: tensors of the shapes to restore, in the order they were packed in.
    """
    sizes = [tensor.shape.num_elements() for tensor in like]
    pieces = tf.split(vector[:-1] / vector[-1], sizes)
    return [tf.reshape(piece, tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]
