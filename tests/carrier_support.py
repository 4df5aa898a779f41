"""What the tests of the simulated carriers share: a carrier, sockets, and requests built by hand from the tables.

Neither the simulators' nor the channels' code makes a request: what both read alike and wrong would not be noticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.simulate.carrier import PROTOCOLS, Account, Carrier, Scenario, revise
from gateway.simulate.log import Log, read

ACCOUNTS = (Account("901234", "1234", 2), Account("00001234", "1234", 2))
NUMBER = "10000000001"
# Source_Addr "901234", secret "1234", timestamp 1123153058: MD5 worked out from the formula.
CMPP_LOGIN = bytes.fromhex("0000002700000001000000013930313233" + "3420dce6adc8bcbc1a0555676f30a95f043042f1f4a2")
CMPP20_LOGIN = CMPP_LOGIN[:34] + b"\x20" + CMPP_LOGIN[35:]
SMGP_LOGIN = bytes.fromhex(
    "0000002a0000000100000001" + b"00001234".hex() + "39e22adb6444b5c059b24a07a2b8e3ab" + "02" + "42f1f4a2" + "30"
)
SGIP_SEQUENCE = bytes.fromhex("b52cacd9" + "42f1f4a2" + "00000000")
SGIP_BIND = bytes.fromhex("0000003d00000001") + SGIP_SEQUENCE + b"\1" + b"901234".ljust(16, b"\0")
SGIP_BIND += b"1234".ljust(16, b"\0") + bytes(8)
SMPP_BIND = (
    bytes.fromhex("0000002300000009" + "00000000" + "00000001") + b"901234\0" + b"1234\0\0" + b"\x34\0\0\0\0\0\0"
)
SMPP_BIND = (len(SMPP_BIND)).to_bytes(4, "big") + SMPP_BIND[4:]
LOGINS = {"cmpp30": CMPP_LOGIN, "cmpp20": CMPP20_LOGIN, "sgip": SGIP_BIND, "smgp": SMGP_LOGIN, "smpp": SMPP_BIND}


class Client:
    """A socket that sends bytes and reads whole PDUs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def pdu(self) -> bytes:
        length = await asyncio.wait_for(self.reader.readexactly(4), 5)
        return length + await asyncio.wait_for(self.reader.readexactly(int.from_bytes(length, "big") - 4), 5)

    async def ask(self, request: bytes) -> bytes:
        self.writer.write(request)
        return await self.pdu()

    async def gone(self) -> bytes:
        """Return what comes until the connection ends."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5)
        except ConnectionError:
            return b"reset"


class WatchedLog(Log):
    """A log that says when it grows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.grown = asyncio.Event()

    def extend(self, entries: Iterable[tuple[str, Mapping[str, object]]]) -> None:
        super().extend(entries)
        self.grown.set()


class Bench:
    """A carrier, its log, and clients."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "carrier.jsonl"
        self.clients: list[Client] = []
        self.carrier: Carrier

    async def start(self, protocol: str, accounts: tuple[Account, ...] = ACCOUNTS, **scenario: Any) -> Carrier:
        self.protocol = protocol
        self.log = WatchedLog(self.path)
        self.carrier = Carrier(PROTOCOLS[protocol], self.log, accounts, revise(Scenario(), scenario))
        self.port = await self.carrier.start()
        return self.carrier

    async def stop(self) -> None:
        for client in self.clients:
            client.writer.close()
        await self.carrier.stop()
        self.log.close()

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def login(self) -> Client:
        client = await self.connect()
        await client.ask(LOGINS[self.protocol])
        return client

    def entries(self, kind: str = "") -> list[dict[str, Any]]:
        self.carrier.flush()
        return read(self.path, kind)

    async def until(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            while len(self.entries(kind)) < count:
                self.log.grown.clear()
                await self.log.grown.wait()
        return self.entries(kind)


def pad(text: str, size: int) -> bytes:
    return text.encode().ljust(size, b"\0")


def cmpp_submit(
    numbers: list[str], sequence: int = 2, content: bytes = b"test", coding: int = 0, udhi: int = 0, report: int = 1,
    width: int = 32, sp: str = "901234",
) -> bytes:  # fmt: skip
    v3 = width == 32
    body = bytes(8) + b"\1\1" + bytes((report,)) + b"\0" + pad("WARN", 10) + b"\0" + bytes(width)
    body += (b"\0" if v3 else b"") + b"\0" + bytes((udhi, coding)) + pad(sp, 6) + b"01" + pad("0", 6) + bytes(34)
    body += pad("106590001", 21) + bytes((len(numbers),)) + b"".join(pad(number, width) for number in numbers)
    body += (b"\0" if v3 else b"") + bytes((len(content),)) + content + bytes(20 if v3 else 8)
    return (12 + len(body)).to_bytes(4, "big") + bytes.fromhex("00000004") + sequence.to_bytes(4, "big") + body


def sgip_submit(numbers: list[str], flag: int = 1, content: bytes = b"test") -> bytes:
    body = pad("106550001", 21) + b"0" * 21 + bytes((len(numbers),)) + b"".join(pad(n, 21) for n in numbers)
    body += pad("12345", 5) + pad("WARN", 10) + b"\1" + pad("0", 6) + pad("0", 6) + b"\0\2\0" + bytes(32)
    body += bytes((flag, 0, 0, 0, 0)) + len(content).to_bytes(4, "big") + content + bytes(8)
    return (20 + len(body)).to_bytes(4, "big") + bytes.fromhex("00000003") + SGIP_SEQUENCE + body


def smgp_submit(numbers: list[str], parameters: bytes = b"", content: bytes = b"test", coding: int = 0) -> bytes:
    body = b"\6\1\0" + pad("WARN", 10) + b"00" + pad("0", 6) + pad("0", 6) + bytes((coding,)) + bytes(34)
    body += pad("106590001", 21) + bytes(21) + bytes((len(numbers),)) + b"".join(pad(n, 21) for n in numbers)
    body += bytes((len(content),)) + content + bytes(8) + parameters
    return (12 + len(body)).to_bytes(4, "big") + bytes.fromhex("0000000200000002") + body


def smpp_submit(number: str, content: bytes = b"test", esm_class: int = 0, parameters: bytes = b"") -> bytes:
    body = b"\0\0\x01" + b"106590001\0" + b"\1\1" + number.encode() + b"\0" + bytes((esm_class, 0, 0, 0, 0, 1, 0, 0, 0))
    body += bytes((len(content),)) + content + parameters
    return (16 + len(body)).to_bytes(4, "big") + bytes.fromhex("000000040000000000000002") + body


SUBMITS: dict[str, Callable[[], bytes]] = {
    "cmpp30": lambda: cmpp_submit([NUMBER]),
    "cmpp20": lambda: cmpp_submit([NUMBER], width=21),
    "sgip": lambda: sgip_submit(["86" + NUMBER]),
    "smgp": lambda: smgp_submit([NUMBER]),
    "smpp": lambda: smpp_submit(NUMBER),
}
