from __future__ import annotations

import pytest

from natdgp.run.output import Ended, Output


class Screen:
    """Both streams of a screen, and the output that is shown on it."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self.output = Output(self.out.append, self.err.append)

    def feed(self, text: str, size: int) -> None:
        """Feed text in reads of so many bytes, and the end."""
        read = text.encode()
        for start in range(0, len(read), size):
            self.output.feed(read[start : start + size])
        self.output.feed(b"")


RUN = (
    "[0]<stdout>:Writing to runs/wäves\n"
    "[1]<stderr>:a warning of rank 1\n"
    "[1]<stdout>:rank 1 prints too\n"
    "[0]<stderr>:a log line\n"
    "[10]<stdout>:ten\n"
    "[0]<stdout>:\r[0]<stdout>:\x1b[2Kstep 1\r[0]<stdout>:step 2\n"
    "[0]<stdout>:[1]<stdout>:quoted\n"
    "horovodrun itself\n"
    "[0]<stdout>:no end of line"
)


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_rank_0_is_shown_as_it_wrote_and_others_are_remembered(size: int) -> None:
    screen = Screen()
    screen.feed(RUN, size)
    assert "".join(screen.out) == (
        "Writing to runs/wäves\n\r\x1b[2Kstep 1\rstep 2\n[1]<stdout>:quoted\nno end of line"
    )
    assert "".join(screen.err) == "a log line\n"
    assert screen.output.tail(0) == ["a log line"]
    assert screen.output.tail(1) == ["a warning of rank 1", "rank 1 prints too"]
    assert screen.output.tail(10) == ["ten"]
    assert screen.output.tail(None) == ["horovodrun itself"]
    assert screen.output.tail(7) == []
    assert screen.output.first_to_fail is None


def test_the_first_rank_to_fail_is_the_one_that_horovodrun_names_first() -> None:
    screen = Screen()
    screen.feed(
        "[0]<stdout>:Process 0 exit with status code 1.\n"  # not horovodrun's words
        "Process 2 exit with status code 137.\n"
        "Terminating remaining workers after failure of Process 2.\n"
        "Process 0 exit with status code 143.\n",
        5,
    )
    assert screen.output.first_to_fail == Ended(2, 137)


def test_only_the_last_lines_are_remembered() -> None:
    screen = Screen()
    screen.feed("".join(f"[1]<stderr>:line {number}\n" for number in range(100)), 4096)
    assert screen.output.tail(1) == [f"line {n}" for n in range(100 - Output.TAIL, 100)]


def test_what_is_no_text_is_no_failure() -> None:
    screen = Screen()
    screen.output.feed(b"[0]<stdout>:\xff\n")
    assert screen.out == ["\ufffd\n"]
