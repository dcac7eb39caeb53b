"""Which MPI library a compiled extension asks for, read from its ELF header without loading it."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable

_MPI_LIBRARY = re.compile(r"lib(mpi|mpich|mpi_cray|mpi_intel|mpi_abi|fmpi|mpifort)[\w+-]*\.so")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 14, 15, 29
_MAX_TABLE = 1 << 20


def other_mpi(extension: str, library: str) -> str | None:
    """Name the MPI library that `extension` needs if it is not the one that is loaded.

    Parameters
    ----------
    extension
        Path of the extension module.
    library
        Path of the MPI library of this process.

    Returns
    -------
    str or None
        The foreign library's name; None when they agree, or when the files do not tell.
    """
    try:
        wanted = dynamic(extension)
        loaded = dynamic(library)
    except (OSError, ValueError, struct.error):
        return None
    needed = [name for name in wanted["needed"] if _MPI_LIBRARY.match(name)]
    known = {os.path.basename(library), os.path.basename(os.path.realpath(library)), *loaded["soname"]}
    if not needed or any(name in known for name in needed):
        return None
    places = _search_path(extension, wanted["path"])
    if any(_same(os.path.join(place, name), library) for place in places for name in needed):
        return None
    return needed[0]


def _search_path(extension, run_path):
    origin = os.path.dirname(os.path.abspath(extension))
    for entry in (*run_path, os.environ.get("LD_LIBRARY_PATH", "")):
        for place in entry.split(":"):
            if place:
                yield place.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)


def _same(path, library):
    try:
        return os.path.samefile(path, library)
    except OSError:
        return False


def dynamic(path: str) -> dict[str, list[str]]:
    """Read the names in the dynamic section of an ELF file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        Lists of names under ``needed``, ``soname`` and ``path`` (run paths).
    """
    with open(path, "rb") as file:
        layout = _Layout(file.read(64))
        file.seek(layout.table)
        segments = layout.segments(file.read(layout.entry * layout.count))
        entries = [e for s in segments if s[0] == _PT_DYNAMIC for e in _dynamic_entries(file, layout, s)]
        strings = next((value for tag, value in entries if tag == _DT_STRTAB), None)
        if strings is None:
            raise ValueError("no dynamic strings")
        file.seek(_file_offset(segments, strings))
        table = file.read(_MAX_TABLE)
    return {
        "needed": _names(table, entries, (_DT_NEEDED,)),
        "soname": _names(table, entries, (_DT_SONAME,)),
        "path": _names(table, entries, (_DT_RPATH, _DT_RUNPATH)),
    }


class _Layout:
    """Word size, byte order and the place of the program headers."""

    def __init__(self, header):
        if len(header) < 64 or header[:4] != b"\x7fELF" or header[4] not in (1, 2) or header[5] not in (1, 2):
            raise ValueError("not an ELF file")
        self.wide = header[4] == 2
        self.order = "<" if header[5] == 1 else ">"
        if self.wide:
            (self.table,) = struct.unpack_from(f"{self.order}Q", header, 32)
            self.entry, self.count = struct.unpack_from(f"{self.order}HH", header, 54)
        else:
            (self.table,) = struct.unpack_from(f"{self.order}I", header, 28)
            self.entry, self.count = struct.unpack_from(f"{self.order}HH", header, 42)

    def segments(self, data):
        """Return (type, offset, address, size in the file) of each segment."""
        found = []
        for at in range(0, self.entry * self.count, self.entry):
            if self.wide:
                kind, _flags, offset, address, _physical, size = struct.unpack_from(
                    f"{self.order}IIQQQQ", data, at
                )
            else:
                kind, offset, address, _physical, size = struct.unpack_from(f"{self.order}IIIII", data, at)
            found.append((kind, offset, address, size))
        return found


def _dynamic_entries(file, layout, segment):
    form = f"{layout.order}QQ" if layout.wide else f"{layout.order}II"
    file.seek(segment[1])
    data = file.read(min(segment[3], _MAX_TABLE))
    data = data[: len(data) - len(data) % struct.calcsize(form)]
    return struct.iter_unpack(form, data)


def _file_offset(segments: Iterable[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return offset + address - start
    raise ValueError("an address outside the file")


def _names(table, entries, tags):
    names = []
    for tag, value in entries:
        if tag in tags and value < len(table):
            names.append(table[value : table.index(b"\0", value)].decode("utf-8", "replace"))
    return names
