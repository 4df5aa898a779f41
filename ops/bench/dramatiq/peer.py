"""Dramatiq over RabbitMQ: one message per recipient, its default middleware.

Messages are persistent and acked after the actor ran; a publish is not confirmed (its default).
"""

from __future__ import annotations

import dramatiq
import sink
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=sink.URL))


@dramatiq.actor(queue_name=sink.QUEUE)
def send(person: int, address: str) -> None:
    """Deliver to one recipient."""
    sink.deliver(person, address)


def produce(number: int) -> None:
    """Send to this many recipients."""
    for person, address in sink.recipients(number):
        send.send(person, address)


if __name__ == "__main__":
    sink.obey(produce)
