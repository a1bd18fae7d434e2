from __future__ import annotations

import signal
import subprocess
import sys
import tempfile

from natdgp.distributed.heartbeat import Phase
from natdgp.distributed.rank_channel import RankChannel

RANK = """
import os, signal, sys
from natdgp.distributed.heartbeat import Phase
from natdgp.distributed.rank_channel import RankChannel
assert not {'tensorflow', 'determined'} & set(sys.modules)
channel = RankChannel(os.fdopen(int(sys.argv[1]), 'r+b', buffering=0), 2)
assert channel.asked is signal.SIGINT
channel.show(1)
channel.heartbeat.begin(Phase.TRAINING, 7)
with channel.heeding():
    channel.conclude(130)
    os._exit(0)
"""


def test_what_a_rank_says_the_command_reads_and_the_other_way_round() -> None:
    with tempfile.TemporaryFile(buffering=0) as file:
        channel = RankChannel(file, 2)
        assert (channel.asked, channel.heeds, channel.status) == (None, False, None)
        assert [channel.reading(rank) for rank in (0, 1)] == [None, None]
        channel.ask_to_end(signal.SIGINT)
        command = [sys.executable, "-c", RANK, str(file.fileno())]
        subprocess.run(command, pass_fds=[file.fileno()], check=True)
        assert (channel.asked, channel.heeds, channel.status) == (signal.SIGINT, True, 130)
        reading = channel.reading(1)
        assert reading is not None
        assert (reading.steps, reading.phase) == (7, Phase.TRAINING)
        assert channel.reading(0) is None
