"""Lines of an .xls, read in a process of its own.

Called by `sheet`. The format is read by a native library, whole; a hostile file can make such a library ask for any
amount of memory, and then the process is gone. So it is a child's, with a limit, and its end is a refusal.
Run as a module, it is that child: the file on standard input, the lines on standard output.
"""

from __future__ import annotations

import io
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from gateway.directory.line import BROKEN, ERRORS, WIDEST, Line, Sheets, number
from gateway.errors import Refused

LARGEST = 128 << 20  # bytes; it is read whole
MEMORY = 1 << 30
CPU_S = 120
CHUNK = 1_000  # lines
PASSWORD, DAMAGED = 3, 4  # exit codes
_Lines = list[tuple[int, int, list[str]]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[float, _Lines]).decode
PROTECTED = "the workbook is protected by a password; save it without one"
ENCRYPTED = "EncryptedPackage".encode("utf-16-le")


def open_xls(stream: BinaryIO) -> Sheets:
    """Open an .xls; hidden sheets are read like the others.

    Raises:
        Refused: it is damaged, protected by a password, or too large.
    """
    size = stream.seek(0, io.SEEK_END)
    if size > LARGEST:
        raise Refused(413, "import_size", f"an .xls above {LARGEST >> 20} MiB is not read; save it as .xlsx or CSV")
    stream.seek(0)
    data = stream.read()
    if ENCRYPTED in data:  # an .xlsx with a password looks like an .xls
        raise Refused(415, "import_format", PROTECTED)
    done = [0.0]
    lines = _lines(data, done)
    return Sheets("xls", _by_sheet(lines), lambda: done[0])


def _lines(data: bytes, done: list[float]) -> Iterator[tuple[int, int, list[str]]]:
    with subprocess.Popen(
        [sys.executable, "-m", "gateway.directory.xls"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(data)  # it writes nothing before it has read all
            child.stdin.close()
            while head := child.stdout.read(4):
                done[0], lines = _decode(child.stdout.read(*struct.unpack("<I", head)))
                yield from lines
        except (BrokenPipeError, struct.error, msgspec.DecodeError):
            pass  # it has ended amid a word: its exit code says why
        except GeneratorExit:  # nobody wants the rest
            child.kill()
            raise
    if child.returncode:
        damaged = "the .xls cannot be read; save it as .xlsx or CSV UTF-8"
        raise Refused(415, "import_format", PROTECTED if child.returncode == PASSWORD else damaged)


def _by_sheet(lines: Iterator[tuple[int, int, list[str]]]) -> Iterator[tuple[int, Iterator[Line]]]:
    """Split the lines; a sheet's are passed over when the next one is asked for."""
    ahead = next(lines, None)

    def of(sheet: int) -> Iterator[Line]:
        nonlocal ahead
        while ahead is not None and ahead[0] == sheet:
            yield ahead[1], ahead[2]
            ahead = next(lines, None)

    while ahead is not None:
        sheet = ahead[0]
        yield sheet, of(sheet)
        while ahead is not None and ahead[0] == sheet:
            ahead = next(lines, None)


# --- the child ------------------------------------------------------------------------------------


def _serve(data: bytes, out: BinaryIO) -> None:
    import python_calamine

    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    sheets = [book.get_sheet_by_index(at) for at in range(len(book.sheet_names))]
    total = sum(sheet.total_height for sheet in sheets) or 1
    waiting: _Lines = []
    written = 0

    def write() -> None:
        nonlocal written
        written += len(waiting)
        packed = _encode((min(1.0, written / total), waiting))
        out.write(struct.pack("<I", len(packed)) + packed)
        waiting.clear()

    for at, sheet in enumerate(sheets, 1):
        for row, cells in enumerate(sheet.iter_rows(), 1):
            waiting.append((at, row, [_text(cell) for cell in cells[:WIDEST]]))
            if len(waiting) == CHUNK:
                write()
    write()
    out.flush()


def _text(cell: object) -> str:
    """Return a cell as text; a date shows as one, and no column takes it for anything else."""
    if isinstance(cell, str):
        return BROKEN if cell in ERRORS else cell
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        return number(repr(cell))
    return str(cell)


def _main() -> int:
    import python_calamine

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _serve(sys.stdin.buffer.read(), sys.stdout.buffer)
    except python_calamine.PasswordError:
        return PASSWORD
    except (python_calamine.CalamineError, MemoryError):
        return DAMAGED
    return 0


if __name__ == "__main__":
    sys.exit(_main())
