"""Fixtures shared by all tests: the private servers, a fresh database, a unique prefix, a clock moved by hand."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from hypothesis import settings
from manual_clock import ManualClock
from psycopg import sql

from gateway.migrations import upgrade

# No property holds or fails by the clock of a loaded machine, by chance, or by what another run has left behind:
# what fails in one place fails everywhere. `--hypothesis-profile=night` looks for what nobody has thought of.
settings.register_profile("steady", deadline=None, derandomize=True, database=None, max_examples=50)
settings.register_profile("night", deadline=None, max_examples=5_000)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that may take longest, by the timeouts they ask for, so that none is left alone at the end.

    Within a file the order stays (pytest-xdist hands out whole files, `make test`).
    """
    longest: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        asked_s = float(marker.args[0]) if marker else 0.0
        longest[item.path] = max(longest.get(item.path, 0.0), asked_s)
    items.sort(key=lambda item: -longest[item.path])


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


@contextmanager
def _database(name: str, template: str) -> Iterator[str]:
    server = _given("MINGLUO_TEST_DATABASE_URL")
    names = sql.Identifier(name), sql.Identifier(template)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))


@pytest.fixture(scope="session")
def _blank() -> Iterator[str]:
    name = f"blank{secrets.token_hex(5)}"
    with _database(name, "template0") as url:
        upgrade(url)
        yield name


@pytest.fixture
def database_url(namespace: str, _blank: str) -> Iterator[str]:
    """URL of a PostgreSQL database of this test's own, with the schema alone: `postgresql://user:password@host/name`.

    `blank.sqlite(tmp_path)` is its like in a file.
    """
    with _database(namespace, _blank) as url:
        yield url


@pytest.fixture
def empty_database_url(namespace: str) -> Iterator[str]:
    """URL of one without even the schema."""
    with _database(namespace, "template0") as url:
        yield url


@pytest.fixture
def namespace() -> str:
    """A short prefix no other test uses, for queues and Redis keys."""
    return f"t{secrets.token_hex(5)}"


@pytest.fixture
def clock() -> ManualClock:
    """A clock moved by hand; import its type from `manual_clock`."""
    return ManualClock()
