"""Natural-gradient steps shared out over ranks: each latent GP is stepped by one rank alone.

With replicated steps every rank takes the same step on every latent GP. Here gradients of q(u) are
reduced to the rank that owns the latent GP (reduce-scatter), which steps it, and the new q(u) is
gathered by all: the two halves of a ring all-reduce, hence its bytes, and a K-th of the work. ZeRO
(Rajbhandari et al. 2020, arXiv 1910.02054) shares out optimizer states in this way, and DP-KFAC
(Zhang et al. 2022, arXiv 2206.15143) the factors of its preconditioner. Over Gloo an all-reduce
stands in for the reduce-scatter: half as many bytes again, in less time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import gpflux
import tensorflow as tf

from natdgp.distributed.reducer import Reducer
from natdgp.natgrad.optimizer import NaturalGradient
from natdgp.natgrad.parameters import packed_triangle, unpacked_triangle
from natdgp.natgrad.safeguards import numbers_of

_FIGURES = 3  # of a share: corrected, shortened, refused


class Share(NamedTuple):
    """Consecutive latent GPs of a layer that one rank steps."""

    layer: int
    start: int
    stop: int


def shares_of_ranks(sizes: Sequence[tuple[int, int]], ranks: int) -> list[list[Share]]:
    """Divide the latent GPs of all layers among ranks, so that each has about as much work.

    :param sizes: (M, P) of every layer; a step costs M^3 for each of the P latent GPs.
    :param ranks: K; some have nothing to do where there are fewer latent GPs.
    """
    total = sum(P * M**3 for M, P in sizes)
    shares: list[list[Share]] = [[] for _ in range(ranks)]
    before = 0
    for layer, (M, P) in enumerate(sizes):
        for latent in range(P):
            # The rank within whose K-th of the work the middle of this latent GP's lies.
            rank = (2 * before + M**3) * ranks // (2 * total)
            before += M**3
            mine = shares[rank]
            if mine and mine[-1].layer == layer:
                mine[-1] = mine[-1]._replace(stop=latent + 1)
            else:
                mine.append(Share(layer, latent, latent + 1))
    return shares


def packed_length(M: int) -> int:
    """Numbers of one latent GP's q_mu and packed q_sqrt."""
    return M + M * (M + 1) // 2


class ShardedSteps:
    """The steps of several layers over all ranks; every rank has to call it alike."""

    def __init__(
        self,
        layers: Sequence[gpflux.layers.GPLayer],
        optimizers: Sequence[NaturalGradient],
        reducer: Reducer,
    ) -> None:
        """:param layers: with full q_sqrt, and their `num_data`, N.
        :param optimizers: one for each layer.
        :param reducer: the ranks.
        """
        self._layers = layers
        self._optimizers = optimizers
        self._reducer = reducer
        sizes = [(layer.q_mu.shape[0], layer.q_mu.shape[1]) for layer in layers]
        self._shares = shares_of_ranks(sizes, reducer.size)

    def proposed(
        self, q_sqrts: Sequence[tf.Tensor], sums: Sequence[tf.Tensor], examples: tf.Tensor
    ) -> Callable[[], None]:
        """Compute one step on q(u) of every layer; returns what stores it.

        :param q_sqrts: q_sqrt of each layer, [P, M, M].
        :param sums: this rank's gradients of the loss summed over its rows, with respect to the
            unconstrained q_mu [M, P] and q_sqrt [P, M (M + 1) / 2] of each layer in turn.
        :param examples: the rows of all ranks together.
        """
        rows = [self._gradients_of(shares, sums) for shares in self._shares]
        own = self._reducer.scatter(_as_matrix(rows))
        proposed = [
            self._proposed(share, q_sqrts[share.layer], piece, examples)
            for share, piece in self._pieces(own)
        ]
        row = tf.concat([*proposed, own[:0]], axis=0)
        longest = max(self._length(shares, _FIGURES) for shares in self._shares)
        gathered = self._reducer.gather(tf.pad(row, [[0, longest - row.shape[0]]]))
        return lambda: self._adopt(gathered)

    def _gradients_of(self, shares: Sequence[Share], sums: Sequence[tf.Tensor]) -> tf.Tensor:
        """What a rank needs for its shares, one after the other."""
        parts = [sums[0][:0, 0]]
        for layer, start, stop in shares:
            q_mu_sum, q_sqrt_sum = sums[2 * layer : 2 * layer + 2]
            parts += _flat(q_mu_sum[:, start:stop], q_sqrt_sum[start:stop])
        return tf.concat(parts, axis=0)

    def _length(self, shares: Sequence[Share], figures: int = 0) -> int:
        return sum(self._share_length(share) + figures for share in shares)

    def _share_length(self, share: Share) -> int:
        M = int(self._layers[share.layer].q_mu.shape[0])
        return (share.stop - share.start) * packed_length(M)

    def _pieces(self, own: tf.Tensor) -> list[tuple[Share, tf.Tensor]]:
        pieces, at = [], 0
        for share in self._shares[self._reducer.rank]:
            length = self._share_length(share)
            pieces.append((share, own[at : at + length]))
            at += length
        return pieces

    def _proposed(
        self, share: Share, q_sqrt: tf.Tensor, sums: tf.Tensor, examples: tf.Tensor
    ) -> tf.Tensor:
        """New q_mu and packed q_sqrt of a share, and its figures."""
        layer = self._layers[share.layer]
        q_mu = tf.convert_to_tensor(layer.q_mu)[:, share.start : share.stop]
        gradients = sums * (layer.num_data / tf.cast(examples, sums.dtype))
        q_mu_grad, packed_grad = self._unflat(share, gradients)
        step = self._optimizers[share.layer].propose(
            q_mu, q_sqrt[share.start : share.stop], q_mu_grad, unpacked_triangle(packed_grad)
        )
        new = _flat(step.q_mu, packed_triangle(step.q_sqrt))
        return tf.concat([*new, tf.cast(numbers_of(step), q_mu.dtype)], axis=0)

    def _unflat(self, share: Share, vector: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """q_mu [M, p] and packed q_sqrt [p, T] of a share."""
        M, p = int(self._layers[share.layer].q_mu.shape[0]), share.stop - share.start
        return (
            tf.transpose(tf.reshape(vector[: p * M], [p, M])),
            tf.reshape(vector[p * M :], [p, M * (M + 1) // 2]),
        )

    def _adopt(self, gathered: tf.Tensor) -> None:
        """Put the shares of every layer together, [K, L] in the order of ranks, and store them."""
        parts: list[list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]] = [[] for _ in self._layers]
        for rank, shares in enumerate(self._shares):
            at = 0
            for share in shares:
                end = at + self._share_length(share)
                q_mu, packed = self._unflat(share, gathered[rank, at:end])
                parts[share.layer].append((q_mu, packed, gathered[rank, end : end + _FIGURES]))
                at = end + _FIGURES
        for layer, optimizer, shares_of_layer in zip(
            self._layers, self._optimizers, parts, strict=True
        ):
            q_mus, packeds, figures = zip(*shares_of_layer, strict=True)
            optimizer.adopt(
                layer.q_mu,
                layer.q_sqrt,
                tf.concat(q_mus, axis=1),
                tf.concat(packeds, axis=0),
                tf.reduce_sum(tf.cast(tf.stack(figures), tf.int64), axis=0),
                True,
            )


def _flat(q_mu: tf.Tensor, packed: tf.Tensor) -> list[tf.Tensor]:
    """[M, p] and [p, T] as vectors, latent GP by latent GP each."""
    return [tf.reshape(tf.transpose(q_mu), [-1]), tf.reshape(packed, [-1])]


def _as_matrix(rows: Sequence[tf.Tensor]) -> tf.Tensor:
    """Vectors as rows of one matrix, zeros behind the shorter ones."""
    longest = max(int(row.shape[0]) for row in rows)
    return tf.stack([tf.pad(row, [[0, longest - int(row.shape[0])]]) for row in rows])
