from __future__ import annotations

import json
import os
import subprocess
import sys

from natdgp.distributed.rendezvous import rendezvous

RANK = """
import json, warnings
warnings.simplefilter("ignore")
import horovod.tensorflow as hvd
import tensorflow as tf
hvd.init()
total = float(hvd.allreduce(tf.constant(hvd.rank() + 1.0), op=hvd.Sum))
print(json.dumps([hvd.rank(), hvd.size(), hvd.local_rank(), hvd.cross_size(), total]))
"""


def test_ranks_find_each_other() -> None:
    with rendezvous(2) as environments:
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK],
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
            )
            for environment in environments
        ]
        told = [json.loads(rank.communicate(timeout=300)[0].splitlines()[-1]) for rank in ranks]
    assert told == [[0, 2, 0, 1, 3.0], [1, 2, 1, 1, 3.0]]
