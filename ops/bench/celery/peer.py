"""Celery over RabbitMQ: one task per recipient, or chunks of a thousand.

As documented for short tasks: results ignored, a high prefetch, no gossip, mingle or events. Messages are persistent
(Celery's default). Plain, a task is acked when it is taken and a publish is not confirmed; with `BENCH_MODE=confirms`
each publish is confirmed and each task acked after it ran. A chunk is `task.chunks`, Celery's own way to batch.
"""

from __future__ import annotations

import os

import sink
from celery import Celery

MODE = os.environ["BENCH_MODE"]
CHUNK = 1000

app = Celery("bench", broker=sink.URL)
app.conf.update(
    task_default_queue=sink.QUEUE,
    task_ignore_result=True,
    worker_prefetch_multiplier=1 if MODE == "chunks" else 64,
    broker_transport_options={"confirm_publish": MODE == "confirms"},
    task_acks_late=MODE == "confirms",
    broker_connection_retry_on_startup=True,
)


@app.task(name="send")
def send(person: int, address: str) -> None:
    """Deliver to one recipient."""
    sink.deliver(person, address)


def produce(number: int) -> None:
    """Send to this many recipients."""
    if MODE == "chunks":
        send.chunks(sink.recipients(number), CHUNK).apply_async()
        return
    for person, address in sink.recipients(number):
        send.delay(person, address)


if __name__ == "__main__":
    sink.obey(produce)
