"""A county's emergency-broadcast platform (应急广播平台) on loopback: it plays in villages, and tells how it goes.

`mingluo simulate ebd` and the tests start it. Written from the tables of the protocol and not from our own codec: it
reads and writes with the standard library alone, and shares nothing with it but SM2. A package that is not signed by
the gateway's certificate does nothing. The log holds what each village really heard: `sound` when its terminals start,
`end` when they fall silent.

**Source:** GD/J 082-2018 and 088-2018 as public implementations write them; interoperability is unverified.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
import tarfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import count

from aiohttp import ClientError, ClientSession, ClientTimeout, FormData, web
from gmalg import SM2

from gateway.simulate.log import Log

PLATFORM, GATEWAY = "44117260000000101010001", "44117260000000103010001"
BEIJING = timezone(timedelta(hours=8))
WHO = b"1234567812345678"  # the identity SM2 is signed under where nobody has agreed on another
SINCE, UNTIL = "2020-01-01T00:00:00+08:00", "2040-01-01T00:00:00+08:00"
LARGEST = 4 * 1024 * 1024
DRILLS = {"3": "platform", "4": "front end", "5": "terminals"}
PLACE = re.compile(r"[0-9]{12}")


@dataclass(frozen=True)
class Party:
    """Who signs: its EBRID, its key, and the names of its certificate."""

    ebrid: str
    issuer: str
    serial: str
    private: bytes = b""
    public: bytes = b""

    @classmethod
    def simulated(cls, ebrid: str, serial: str) -> Party:
        """Return one whose key follows from its EBRID; it opens nothing else."""
        private = hashlib.sha256(f"simulated {ebrid}".encode()).digest()
        return cls(ebrid, "000000000075", serial, private, SM2(private).generate_pk(private))


@dataclass(frozen=True)
class EbdScenario:
    """What the platform is like."""

    within: str = "4117"
    """Area codes it serves begin with this."""
    play_s: float = 5.0
    """Seconds an announcement sounds."""
    coverage: float = 1.0
    """Share of each village's terminals that sound."""
    dead: frozenset[str] = frozenset()
    """Villages none of whose terminals works."""
    failing: bool = False
    """Broadcasts are taken, and fail."""
    rejects: str = ""
    """ResultCode every broadcast is refused with."""
    silent: bool = False
    """Take a package and never answer."""
    slow_s: float = 0.0
    """Seconds before each answer."""
    unsigned: bool = False
    """Answers come without a signature."""
    forged: bool = False
    """Answers are signed with another key."""
    repeats: bool = False
    """Play a package that has come before once more."""
    states: bool = True
    """Answer how a broadcast is; else only that the question has come."""


@dataclass
class Cast:
    """One broadcast."""

    ebm: str
    kind: str
    areas: list[str]
    text: str
    until: datetime
    state: str = "1"
    ending: asyncio.TimerHandle | None = None


@dataclass
class _Package:
    """A package as read: its id, type, the element of its type, and the sounds that came with it."""

    id: str
    type: str
    body: ET.Element
    sounds: dict[str, bytes]


class _RefusedError(Exception):
    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code, self.why = code, why


@dataclass
class EbdPlatform:
    """The server. `scenario` may be replaced while it runs; `push` is where it sends its broadcast log, if anywhere."""

    log: Log
    scenario: EbdScenario = field(default_factory=EbdScenario)
    push: str = ""
    me: Party = field(default_factory=lambda: Party.simulated(PLATFORM, "000000003363"))
    gateway: Party = field(default_factory=lambda: Party.simulated(GATEWAY, "000000003364"))
    url: str = ""
    casts: dict[str, Cast] = field(default_factory=dict)
    villages: set[str] = field(default_factory=set)
    """Whose terminals it tells the states of; those that were ever meant are added."""

    def __post_init__(self) -> None:
        self._taken: set[str] = set()  # EBDIDs of broadcasts
        self._sequence = count()
        self._runner: web.AppRunner | None = None
        self._pushing: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> str:
        """Listen on loopback and return the URL for packages; port 0 takes a free one."""
        app = web.Application(client_max_size=2 * LARGEST)
        app.router.add_post("/ebd", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/ebd"
        return self.url

    def settings(self) -> str:
        """Return the table of channels.toml of a gateway that is to talk with this platform."""
        return (
            f'[loudspeaker_ebd]\nurl = "{self.url}"\nebrid = "{self.gateway.ebrid}"\nplatform = "{self.me.ebrid}"\n'
            f'sender_name = "县预警信息发布中心"\nkey = "{self.gateway.private.hex()}"\n'
            f'issuer = "{self.gateway.issuer}"\nserial = "{self.gateway.serial}"\n'
            f'[[loudspeaker_ebd.trusted]]\nissuer = "{self.me.issuer}"\nserial = "{self.me.serial}"\n'
            f'public_key = "{self.me.public.hex()}"\nsince = {SINCE}\nuntil = {UNTIL}'
        )

    async def stop(self) -> None:
        """Stop listening and playing."""
        for cast in self.casts.values():
            if cast.ending is not None:
                cast.ending.cancel()
        for task in self._pushing:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self.scenario.slow_s:
            await asyncio.sleep(self.scenario.slow_s)
        form = await request.post()
        file = form.get("file")
        data = file.file.read() if isinstance(file, web.FileField) else b""
        related = ""
        try:
            files = _untar(data)
            related = _id_of(files)
            package = self._read(files, related)
            body = self._act(package)
        except _RefusedError as refused:
            self.log.write("refused", code=refused.code, why=refused.why, ebd=related)
            body = _response(refused.code, refused.why)
        if self.scenario.silent and request.transport is not None:
            request.transport.abort()
        return web.Response(body=self._write(body, related), content_type="application/x-tar")

    # --- packages ---------------------------------------------------------------------------------------

    def _read(self, files: dict[str, bytes], id_: str) -> _Package:
        """Open a package; nothing of it counts before its signature has."""
        body_name = f"EBDB_{id_}.xml"
        if f"EBDS_{body_name}" not in files:
            raise _RefusedError("4", "unsigned")
        self._verify(files[body_name], files[f"EBDS_{body_name}"], id_)
        root = _xml(files[body_name], "2")
        type_ = _text(root, "EBDType")
        body = root.find(type_)
        if _text(root, "EBDID") != id_ or _text(root, "SRC/EBRID") != self.gateway.ebrid:
            raise _RefusedError("4", "sender")
        if _text(root, "DEST/EBRID") != self.me.ebrid:
            raise _RefusedError("5", "target")
        if body is None:
            raise _RefusedError("3", type_)
        return _Package(id_, type_, body, {name: one for name, one in files.items() if name.startswith("EBDR_")})

    def _verify(self, data: bytes, signature: bytes, id_: str) -> None:
        signs = _xml(signature, "4")
        moment, serial = _text(signs, "SignatureTime"), _text(signs, "SignatureCert/CertSN")
        named = (_text(signs, "SignatureCert/IssuerID"), serial)
        algorithms = (_text(signs, "DigestAlgorithm"), _text(signs, "SignatureAlgorithm"))
        if _text(signs, "RelatedEBD/EBDID") != id_ or algorithms != ("SM3", "SM2"):
            raise _RefusedError("4", "signature")
        if named != (self.gateway.issuer, self.gateway.serial):
            raise _RefusedError("4", "certificate")
        value = base64.b64decode(_text(signs, "SignatureValue"))
        if value[:10] != bytes.fromhex(moment + serial) or len(value) != 74:
            raise _RefusedError("4", "value")
        if not SM2(None, WHO, self.gateway.public).verify(data, value[10:42], value[42:]):
            raise _RefusedError("4", "value")

    def _write(self, body: ET.Element, related: str = "") -> bytes:
        now = datetime.now(BEIJING)
        id_ = f"10{self.me.ebrid}{now:%Y%m%d}{next(self._sequence):08d}"
        root = ET.Element("EBD")
        for name, text in (("EBDVersion", "1.0"), ("EBDID", id_), ("EBDType", body.tag)):
            ET.SubElement(root, name).text = text
        for name, party in (("SRC", self.me), ("DEST", self.gateway)):
            ET.SubElement(ET.SubElement(root, name), "EBRID").text = party.ebrid
        ET.SubElement(root, "EBDTime").text = f"{now:%Y-%m-%d %H:%M:%S}"
        answered = ET.SubElement(root, "RelatedEBD")
        if related:
            ET.SubElement(answered, "EBDID").text = related
        root.append(body)
        data = ET.tostring(root, encoding="utf-8", xml_declaration=True)
        files = {f"EBDB_{id_}.xml": data}
        if not self.scenario.unsigned:
            files[f"EBDS_EBDB_{id_}.xml"] = self._sign(data, id_)
        return _tar(files)

    def _sign(self, data: bytes, id_: str) -> bytes:
        moment = f"{int(time.time()):08x}"
        signer = Party.simulated("a stranger", self.me.serial) if self.scenario.forged else self.me
        r, s = SM2(signer.private, WHO, signer.public).sign(data)
        root = ET.Element("Signature")
        ET.SubElement(root, "Version").text = "1.0"
        ET.SubElement(ET.SubElement(root, "RelatedEBD"), "EBDID").text = id_
        cert = ET.SubElement(root, "SignatureCert")
        for name, text in (("CertType", "1"), ("IssuerID", self.me.issuer), ("CertSN", self.me.serial)):
            ET.SubElement(cert, name).text = text
        value = base64.b64encode(
            bytes.fromhex(moment + self.me.serial) + r.rjust(32, b"\0") + s.rjust(32, b"\0")
        ).decode()
        for name, text in (
            ("SignatureTime", moment), ("DigestAlgorithm", "SM3"), ("SignatureAlgorithm", "SM2"),
            ("SignatureValue", value),
        ):  # fmt: skip
            ET.SubElement(root, name).text = text
        return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))

    # --- what they ask ----------------------------------------------------------------------------------

    def _act(self, package: _Package) -> ET.Element:
        body = package.body
        if package.type == "ConnectionCheck":
            self.log.write("heartbeat", ebd=package.id)
            return _response("1", "taken")
        if package.type == "EBM":
            return self._cancel(body) if _text(body, "MsgBasicInfo/MsgType") == "2" else self._play(package)
        if package.type == "EBMStateRequest":
            return self._state(_text(body, "EBM/EBMID"))
        if package.type == "OMDRequest" and _text(body, "OMDType") == "EBRDTState":
            return self._terminals()
        raise _RefusedError("5", package.type)

    def _play(self, package: _Package) -> ET.Element:
        body, scenario = package.body, self.scenario
        ebm, kind = _text(body, "EBMID"), _text(body, "MsgBasicInfo/MsgType")
        if package.id in self._taken and not scenario.repeats:
            self.log.write("again", ebm=ebm, ebd=package.id)
            return _response("1", "known")
        areas = _text(body, "MsgContent/AreaCode").split(",")
        if kind not in ("1", *DRILLS) or not all(PLACE.fullmatch(one) for one in areas):
            raise _RefusedError("2", "kind" if PLACE.fullmatch(areas[0]) else "area")
        if not all(one.startswith(scenario.within) for one in areas):
            raise _RefusedError("5", "outside")
        if scenario.rejects:
            raise _RefusedError(scenario.rejects, "rejected")
        until = datetime.strptime(_text(body, "MsgBasicInfo/EndTime"), "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
        cast = Cast(ebm, kind, areas, _text(body, "MsgContent/MsgDesc"), until)
        self.log.write(
            "broadcast", ebm=ebm, ebd=package.id, msg_type=kind, areas=areas, title=_text(body, "MsgContent/MsgTitle"),
            severity=_text(body, "MsgBasicInfo/Severity"), event=_text(body, "MsgBasicInfo/EventType"),
            recording_bytes=_recording(package),
        )  # fmt: skip
        self._taken.add(package.id)
        self.casts[ebm] = cast
        self.villages.update(areas)
        self._begin(cast)
        return _response("1", "taken")

    def _begin(self, cast: Cast) -> None:
        """Sound it in every village that can; of the drills only the last kind is heard by anybody."""
        if self.scenario.failing:
            cast.state = "4"
            self._tell(cast)
            return
        cast.state = "2"
        real = cast.kind == "1"
        for village in cast.areas:
            if (real or cast.kind == "5") and self._share(village) > 0:
                self.log.write("sound", village=village, ebm=cast.ebm, drill=not real, text=cast.text)
        left = (cast.until - datetime.now(UTC)).total_seconds()
        wait_s = max(0.0, min(self.scenario.play_s, left))
        cast.ending = asyncio.get_running_loop().call_later(wait_s, self._end, cast, "3")

    def _end(self, cast: Cast, state: str) -> None:
        if cast.ending is not None:
            cast.ending.cancel()
        cast.state = state
        self.log.write("end", ebm=cast.ebm, how="played" if state == "3" else "cancelled")
        self._tell(cast)

    def _cancel(self, body: ET.Element) -> ET.Element:
        cast = self.casts.get(_text(body, "EBMID"))
        if cast is None:
            raise _RefusedError("5", "unknown broadcast")
        if cast.state in ("1", "2"):
            self._end(cast, "5")
        return _response("1", "cancelled")

    def _share(self, village: str) -> float:
        return 0.0 if village in self.scenario.dead else self.scenario.coverage

    def _state(self, ebm: str) -> ET.Element:
        cast = self.casts.get(ebm)
        if cast is None:
            raise _RefusedError("5", "unknown broadcast")
        if not self.scenario.states:
            return _response("1", "taken")
        found = ET.Element("EBMStateResponse")
        ET.SubElement(found, "RptTime").text = f"{datetime.now(BEIJING):%Y-%m-%d %H:%M:%S}"
        self._standing(found, cast)
        return found

    def _standing(self, parent: ET.Element, cast: Cast) -> None:
        ebm = ET.SubElement(parent, "EBM")
        ET.SubElement(ebm, "EBMID").text = cast.ebm
        ET.SubElement(ET.SubElement(ebm, "MsgBasicInfo"), "MsgType").text = cast.kind
        ET.SubElement(parent, "BrdStateCode").text = cast.state
        ET.SubElement(parent, "BrdStateDesc").text = "播发状态"
        for village in cast.areas:
            covered = ET.SubElement(parent, "Coverage")
            ET.SubElement(covered, "CoverageRate").text = f"{self._share(village):.2f}"
            ET.SubElement(covered, "AreaCode").text = village
            ET.SubElement(covered, "ResBrdStat").text = "1,1,1,2"

    def _terminals(self) -> ET.Element:
        """Tell the states of two terminals of every village."""
        found = ET.Element("EBRDTState")
        for village in sorted(self.villages):
            for number in (1, 2):
                terminal = ET.SubElement(found, "EBRDT")
                ET.SubElement(terminal, "RptTime").text = f"{datetime.now(BEIJING):%Y-%m-%d %H:%M:%S}"
                ET.SubElement(terminal, "EBRID").text = f"6{village}040101{number:04d}"
                ET.SubElement(terminal, "StateCode").text = "3" if village in self.scenario.dead else "1"
                ET.SubElement(terminal, "StateDesc").text = "终端状态"
        return found

    # --- what it tells by itself ------------------------------------------------------------------------

    def _tell(self, cast: Cast) -> None:
        if self.push:
            task = asyncio.create_task(self._push(cast))
            self._pushing.add(task)
            task.add_done_callback(self._pushing.discard)

    async def _push(self, cast: Cast) -> None:
        found = ET.Element("EBMBrdLog")
        self._standing(ET.SubElement(found, "EBMBrdItem"), cast)
        code = await self.send(found)
        self.log.write("pushed", ebm=cast.ebm, answer=code)

    async def send(self, body: ET.Element) -> str:
        """Send a package to the gateway; return the ResultCode of its answer, "" if none could be believed."""
        form = FormData()
        form.add_field("file", self._write(body), filename="EBDT.tar", content_type="application/x-tar")
        try:
            async with (
                ClientSession(timeout=ClientTimeout(total=10)) as session,
                session.post(self.push, data=form) as answer,
            ):
                files = _untar(await answer.read())
                return _text(self._read(files, _id_of(files)).body, "ResultCode")
        except (ClientError, TimeoutError, _RefusedError):
            return ""


def _recording(package: _Package) -> int:
    """Return the size of the sound a broadcast brings, 0 for none; it must be the one its words name."""
    named = package.body.find("MsgContent/Auxiliary")
    if named is None and not package.sounds:
        return 0
    sound = package.sounds.get(_text(package.body, "MsgContent/Auxiliary/AuxiliaryDesc"))
    if sound is None or _text(package.body, "MsgContent/Auxiliary/AuxiliaryType") != "2":
        raise _RefusedError("3", "recording")
    if _text(package.body, "MsgContent/Auxiliary/Size") != str(len(sound)):
        raise _RefusedError("2", "recording")
    return len(sound)


def _response(code: str, what: str) -> ET.Element:
    found = ET.Element("EBDResponse")
    ET.SubElement(found, "ResultCode").text = code
    ET.SubElement(found, "ResultDesc").text = what
    return found


def _text(parent: ET.Element, path: str) -> str:
    return (parent.findtext(path) or "").strip()


def _xml(data: bytes, code: str) -> ET.Element:
    try:
        if b"<!" in data:
            raise _RefusedError(code, "doctype")
        return ET.fromstring(data)  # noqa: S314  # without a DTD there are no entities to expand
    except ET.ParseError:
        raise _RefusedError(code, "xml") from None


def _untar(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive.getmembers():
                opened = archive.extractfile(member) if member.isreg() and "/" not in member.name else None
                if opened is None or member.name in files or member.size > LARGEST:
                    raise _RefusedError("2", "member")
                files[member.name] = opened.read()
    except tarfile.TarError:
        raise _RefusedError("2", "tar") from None
    return files


def _id_of(files: dict[str, bytes]) -> str:
    """Return the id a package has by the name of its body."""
    bodies = [name for name in files if name.startswith("EBDB_")]
    if len(bodies) != 1:
        raise _RefusedError("2", "body")
    return bodies[0].removeprefix("EBDB_").removesuffix(".xml")


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()
