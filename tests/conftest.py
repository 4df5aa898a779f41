"""Fixtures shared by all tests: the private servers, a fresh database, a unique prefix, a clock moved by hand."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from hypothesis import settings
from manual_clock import ManualClock
from psycopg import sql

# No property holds or fails by the clock of a loaded machine.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def _given(variable: str) -> str:
    url = os.environ.get(variable, "")
    if not url:
        # Never skipped: a test that needs a real server proves nothing without it.
        pytest.fail(
            f"{variable} is not set: run `make test`, or set it to the URL of a server for tests", pytrace=False
        )
    return url


@pytest.fixture(scope="session")
def amqp_url() -> str:
    """URL of a RabbitMQ shared by all tests; name queues with `namespace`."""
    return _given("MINGLUO_TEST_AMQP_URL")


@pytest.fixture(scope="session")
def redis_url() -> str:
    """URL of a Redis shared by all tests; prefix keys with `namespace`."""
    return _given("MINGLUO_TEST_REDIS_URL")


@pytest.fixture
def database_url(namespace: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database of this test's own, `postgresql://user:password@host:port/name`."""
    server = _given("MINGLUO_TEST_DATABASE_URL")
    name = sql.Identifier(namespace)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
        yield urlunsplit(urlsplit(server)._replace(path=f"/{namespace}"))
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def namespace() -> str:
    """A short prefix no other test uses, for queues and Redis keys."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture
def clock() -> ManualClock:
    """A clock moved by hand; import its type from `manual_clock`."""
    return ManualClock()
