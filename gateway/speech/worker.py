"""The process that makes sound: `python -m gateway.speech.worker CONFIG`. Started by `gateway.speech.pool`.

Reads one job per line, answers one line per job, ends when its input does. Each job runs in a fork of the loaded
process: the synthesiser carries state from one text to the next, and only so the same order always gives the same
bytes; and where it crashes, only the fork is gone. No word of a text leaves here, in errors neither.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import msgspec

from gateway.speech.announcement import Job, Made, compose, encode
from gateway.speech.chime import TONES, chime
from gateway.speech.engine import RATE_HZ, Engine
from gateway.speech.pronunciation import Pronunciation

LIMIT_S = 120  # of one fork; the pool's limit is shorter


def main() -> None:
    """Work until the input ends."""
    os.nice(5)  # the sockets beside it go first, bulk work (15) after it
    pronunciation = Pronunciation.load(Path(sys.argv[1]))
    # What every fork needs is there before the first one.
    pronunciation.read("预热")
    for tone in TONES:
        chime(tone)
    import soundfile  # noqa: F401  a fork finds it loaded

    engine = Engine()
    decode = msgspec.json.Decoder(Job).decode
    for line in sys.stdin.buffer:
        answer = _in_fork(decode(line), engine, pronunciation)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


def _in_fork(job: Job, engine: Engine, pronunciation: Pronunciation) -> bytes:
    """Return the answer to a job; a fork that dies is an answer, too."""
    inward, outward = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(LIMIT_S)  # also where nobody is left to end it
            answer = msgspec.json.encode(_make(job, engine, pronunciation))
            os.write(outward, answer)
        finally:
            os._exit(0)  # nothing of the parent's may run a second time
    os.close(outward)
    with os.fdopen(inward, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer or msgspec.json.encode(Made(error="crashed"))


def _make(job: Job, engine: Engine, pronunciation: Pronunciation) -> Made:
    try:
        samples = compose(job.order, engine, pronunciation)
        data = encode(samples, job.order.form)
        if job.out:
            Path(job.out).write_bytes(data)
    except Exception as error:
        return Made(error=type(error).__name__)
    return Made(duration_s=round(len(samples) / RATE_HZ, 3))


if __name__ == "__main__":
    main()
