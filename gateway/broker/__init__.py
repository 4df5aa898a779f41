"""Brokers: carriers of packed batches between the relay and the workers."""

from __future__ import annotations

from gateway.broker.local import LocalBroker
from gateway.broker.rabbitmq import RabbitBroker

__all__ = ["LocalBroker", "RabbitBroker"]
