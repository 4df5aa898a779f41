"""The demonstration's night as a cluster: five processes over RabbitMQ, PostgreSQL and Redis."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from gateway.demo.screen import Screen
from gateway.demo.stage import CLUSTER, Servers, Stage
from gateway.demo.story import Story


@pytest.mark.timeout(400)
async def test_a_night_on_a_cluster_leaves_nobody_out_and_tells_nobody_twice(
    tmp_path: Path, amqp_url: str, redis_url: str, database_url: str
) -> None:
    """From one process to many is three URLs: the same night, every person once, every village shown as it is."""
    stage = Stage(tmp_path, Servers(amqp_url, redis_url, database_url))
    story = Story(stage, 1000, Screen(Console(file=io.StringIO())))
    try:
        await story.prepare()
        await story.play()
        assert set(CLUSTER) <= stage.processes.keys()
    finally:
        stage.stop()
    result = story.result()
    assert (result["unaccounted"], result["duplicates"]) == (0, 0)
    assert [phase.verdict.marked for phase in story.phases] == [0, 0, 0]
    shown = result["villages_confirmed"] + result["villages_played"] + len(result["gaps"])
    assert shown == result["villages"] > 50
