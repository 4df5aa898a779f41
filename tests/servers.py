"""Private RabbitMQ, PostgreSQL and Redis for tests: loopback only, own data, nothing left behind.

`python -m tests.servers -- COMMAND` starts all three, tells COMMAND where they are
(`MINGLUO_TEST_AMQP_URL`, `MINGLUO_TEST_DATABASE_URL`, `MINGLUO_TEST_REDIS_URL`; one that is set already is used
as given), runs it and stops them. A fault test owns a server instead, and breaks it:

    with RabbitMQ() as broker:
        broker.kill()    # SIGKILL; freeze() and thaw() for a server that hangs without failing
        broker.start()   # same port, same data

Root is dropped, for PostgreSQL refuses it. Servers also die with the process whose main thread started them
(a server started from another thread must be closed by hand). Ports lie below the range of outgoing
connections, so nobody takes a dead server's port.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import ClassVar, Self

import psycopg

NOBODY = 65534
START_S = 60.0
STOP_S = 30.0
POLL_S = 0.02
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


PARTS, PORTS = 24, 500
_turn = count(secrets.randbelow(PORTS))  # hypothesis seeds `random` alike in every process


class ServerError(Exception):
    """A server that is not installed, does not start or does not stop; holds the end of its log."""


def free_port() -> int:
    """Return a loopback port nobody listens on: one after the other, each process in a part of its own.

    Between this and the moment a server listens, no other process must find the same one free.
    """
    first = 20_000 + os.getpid() % PARTS * PORTS
    while True:
        port = first + next(_turn) % PORTS
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _find(program: str, *folders: str) -> str:
    found = shutil.which(program, path=os.pathsep.join((*folders, PATH, os.environ.get("PATH", ""))))
    if found is None:
        raise ServerError(f"{program} is not installed: run `make test`, which installs it, or `make servers`")
    return found


def _until(done: Callable[[], bool], wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _ask(port: int, question: bytes, answer: bytes) -> bool:
    """Whether whoever listens on `port` gives this answer: it speaks its protocol, not just TCP."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(question)
        return connection.recv(len(answer)) == answer
    return False


def _state(pid: int) -> tuple[str, int]:
    """State letter and parent of a process; ("", 0) when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0], int(fields[1])


def tree(root: int) -> list[int]:
    """Pids of a process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children.setdefault(_state(int(entry.name))[1], []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


class Server(ABC):
    """One private server. A context manager: entering starts it, leaving discards it with its data."""

    name: ClassVar[str]
    variable: ClassVar[str]
    """Environment variable that tells tests its URL."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    discard_signal: ClassVar[signal.Signals] = signal.SIGKILL
    """The fastest end that leaves nothing outside the data folder."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"mingluo-{self.name}-"))
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it listens; the same for its whole life."""

    @abstractmethod
    def command(self) -> list[str]:
        """Command line that runs it in the foreground; prepares the data folder when it is new."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it speaks its protocol."""

    def environment(self) -> Mapping[str, str]:
        """Variables it needs besides PATH, HOME and the locale."""
        return {}

    @property
    def log(self) -> str:
        """The end of what it wrote."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else ""

    def start(self) -> None:
        """Start it, the first time or again, and return once it speaks its protocol.

        Raises:
            ServerError: not installed, or no answer in time.
        """
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the process without waiting for its protocol."""
        if self._process is not None:
            raise ServerError(f"{self.name} runs already")
        self._process = self._spawn(self.command())

    def wait(self) -> None:
        """Wait until it speaks its protocol."""
        process = self._running()
        _until(lambda: process.poll() is not None or self.answers(), START_S)
        if process.poll() is not None or not self.answers():
            raise ServerError(f"{self.name} did not start (exit {process.poll()}):\n{self.log}")

    def stop(self) -> None:
        """Stop it in order; data and port stay for the next start."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it and its children as a power cut would; data and port stay."""
        root = self._running().pid
        _signal([root], signal.SIGSTOP)  # it must not start children while we collect them
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it from running: connections stay open and nothing answers."""
        root = self._running().pid
        _signal([root], signal.SIGSTOP)
        _signal(tree(root), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        _signal(tree(self._running().pid), signal.SIGCONT)

    def close(self) -> None:
        """End it, whatever its state, and remove its data."""
        if self._process is not None:
            self._end(self.discard_signal)
        shutil.rmtree(self.folder)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError(f"{self.name} is not running")
        return self._process

    def _end(self, number: signal.Signals) -> None:
        """Signal the process (all of its tree for SIGKILL), and wait until the whole tree is gone."""
        process = self._running()
        pids = tree(process.pid)
        _signal(pids if number == signal.SIGKILL else pids[:1], number)
        _signal(pids, signal.SIGCONT)  # a frozen process handles no signal
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            _signal(pids, signal.SIGKILL)
            process.wait()
            raise ServerError(f"{self.name} had to be killed:\n{self.log}") from error
        finally:
            self._process = None
            # An orphan may stay a zombie where pid 1 reaps nobody; it holds nothing any more.
            _until(lambda: all(_state(pid)[0] in ("", "Z") for pid in pids), STOP_S)

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                self._unprivileged(command),
                env={"PATH": PATH, "HOME": str(self.folder), "LC_ALL": "C.UTF-8", **self.environment()},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, not for their servers
            )

    def _unprivileged(self, command: Sequence[str]) -> list[str]:
        options = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
        # The kernel sends this signal when the *thread* that started the child ends.
        if threading.current_thread() is threading.main_thread():
            options += ["--pdeathsig", self.discard_signal.name.removeprefix("SIG")]
        return [_find("setpriv"), *options, "--", *command] if options else list(command)


class RabbitMQ(Server):
    """RabbitMQ with an epmd of its own, small memory and no plugins.

    A quorum queue declared less than about three seconds before `kill` may stay dead for good (3.10).
    """

    name = "rabbitmq"
    variable = "MINGLUO_TEST_AMQP_URL"

    def __init__(self) -> None:
        super().__init__()
        self._dist_port = free_port()
        self._epmd_port = free_port()
        self._epmd: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL of the default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def command(self) -> list[str]:
        """Write the configuration, start epmd, and return the server's script: it becomes the Erlang VM itself."""
        program = _find("rabbitmq-server", "/usr/lib/rabbitmq/bin")
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "rabbitmq-env.conf").write_text("")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            "vm_memory_high_watermark.absolute = 768MB\n"
            "disk_free_limit.absolute = 64MB\n"
            "raft.wal_max_size_bytes = 33554432\n"
            "log.file = false\n"
            "log.console = true\n"
            "log.console.level = warning\n"
        )
        if self._epmd is None:
            # The node would start one that outlives it; one that stands already is used.
            self._epmd = self._spawn([_find("epmd"), "-port", str(self._epmd_port), "-address", "127.0.0.1"])
            _until(lambda: _ask(self._epmd_port, b"\x00\x01n", self._epmd_port.to_bytes(4, "big")), START_S)
        return [program]

    def environment(self) -> Mapping[str, str]:
        """Everything inside the data folder and on loopback."""
        folder = str(self.folder)
        return {
            "RABBITMQ_NODENAME": f"mingluo-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +A 8 -kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "true",  # run in the foreground, without a shell that forwards signals
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def answers(self) -> bool:
        """Whether it answers the AMQP 0-9-1 header with a method frame on channel 0."""
        return _ask(self.port, b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00")

    def close(self) -> None:
        """End the node, then its epmd."""
        try:
            super().close()
        finally:
            if self._epmd is not None:
                self._epmd.kill()
                self._epmd.wait()
                self._epmd = None


class PostgreSQL(Server):
    """PostgreSQL as small as a test needs; commits are as durable as in production."""

    name = "postgresql"
    variable = "MINGLUO_TEST_DATABASE_URL"
    stop_signal = signal.SIGINT  # "fast": it does not wait for clients to leave
    discard_signal = signal.SIGQUIT  # SIGKILL would leave its shared memory in the kernel
    settings: ClassVar[Mapping[str, str]] = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_buffers": "64MB",
        "max_connections": "200",
        "fsync": "on",
        "synchronous_commit": "on",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "dynamic_shared_memory_type": "mmap",
        "jit": "off",
    }

    @property
    def url(self) -> str:
        """URL of the maintenance database, as a user who may create others."""
        return f"postgresql://mingluo:mingluo@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        """Create the cluster if it is new."""
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True)
        folders = [str(path) for path in versions]
        data = self.folder / "data"
        if not data.exists():
            password = self.folder / "password"
            password.write_text("mingluo")
            options = ["--username=mingluo", f"--pwfile={password}", "--auth=scram-sha-256", "--no-sync"]
            initdb = self._spawn([_find("initdb", *folders), "-D", str(data), "--encoding=UTF8", *options])
            if initdb.wait() != 0:
                raise ServerError(f"initdb failed:\n{self.log}")
        settings = [option for name, value in self.settings.items() for option in ("-c", f"{name}={value}")]
        return [_find("postgres", *folders), "-D", str(data), "-p", str(self.port), *settings]

    def answers(self) -> bool:
        """Whether a user can log in and ask."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
        return False

    def close(self) -> None:
        """End it, and free the shared memory a killed server left in the kernel."""
        pid_file = self.folder / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines() if self._process is None and pid_file.exists() else []
        super().close()
        if len(lines) > 6:  # the seventh line holds key and id
            command = [_find("ipcrm"), "--shmem-id", lines[6].split()[1]]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL)  # a later start may have freed it


class Redis(Server):
    """Redis with an append-only file."""

    name = "redis"
    variable = "MINGLUO_TEST_REDIS_URL"

    @property
    def url(self) -> str:
        """URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """Everything on the command line; no configuration file."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [_find("redis-server"), *options, "--appendonly", "yes", "--save", ""]

    def answers(self) -> bool:
        """Whether it answers PING; not while it loads its data."""
        return _ask(self.port, b"PING\r\n", b"+PONG\r\n")


@contextmanager
def running(kinds: Sequence[type[Server]]) -> Iterator[dict[str, str]]:
    """Run one server of each kind, started side by side; yields variable → URL."""
    with ExitStack() as stack:
        servers: list[Server] = []
        for kind in kinds:
            server = kind()
            stack.callback(server.close)
            servers.append(server)
            server.launch()
        for server in servers:
            server.wait()
        yield {server.variable: server.url for server in servers}


def _on_signal(number: int, _: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the clean-up that follows must not be cut short
    raise SystemExit(128 + number)


def _run(command: Sequence[str], urls: Mapping[str, str]) -> int:
    """Run the command; when we are told to end, it is told too, and killed if it will not."""
    process = subprocess.Popen(command, env={**os.environ, **urls})
    try:
        return process.wait()
    except SystemExit as stopped:
        # At a terminal Ctrl-C has reached the command already; twice would cut its own clean-up short.
        if not (stopped.code == 128 + signal.SIGINT and os.isatty(0)):
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
        process.wait()
        raise


def main(arguments: Sequence[str]) -> int:
    """Run `-- COMMAND` beside the servers; return its exit status."""
    if len(arguments) < 2 or arguments[0] != "--":
        print("usage: python -m tests.servers -- COMMAND …", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _on_signal)
    wanted = [kind for kind in (RabbitMQ, PostgreSQL, Redis) if not os.environ.get(kind.variable)]
    began = time.monotonic()
    try:
        with running(wanted) as urls:
            names = ", ".join(kind.name for kind in wanted) or "none, all are given"
            print(f"servers: {names} ({time.monotonic() - began:.1f} s)", file=sys.stderr, flush=True)
            return _run(arguments[1:], urls)
    except ServerError as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
