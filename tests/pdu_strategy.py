"""Any PDU of a codec's table, for round trips: values follow the declared kinds, a new field is covered at once."""

from __future__ import annotations

from typing import Any, get_type_hints

from hypothesis import strategies as st

from channels._field import Content, CString, Numbers, Octets, Sized, Text, Tlvs, Uint
from channels._pdu import Group, Pdu

CHARACTERS = st.characters(min_codepoint=1, max_codepoint=0xFF)


def values(kind: object, form: int) -> st.SearchStrategy[Any]:
    """What a field may hold in a version."""
    match kind:
        case Uint():
            return st.integers(0, 256 ** kind.size_in(form) - 1)
        case Text():
            return st.text(CHARACTERS, max_size=kind.size_in(form))
        case CString():
            return st.text(CHARACTERS, max_size=kind.most - 1)
        case Octets():
            return st.binary(min_size=kind.size_in(form), max_size=kind.size_in(form))
        case Numbers():
            number = st.text(CHARACTERS, min_size=1, max_size=kind.size_in(form))
            return st.lists(number, min_size=1, max_size=kind.most).map(tuple)
        case Content():
            return st.binary(max_size=255)
        case Tlvs():
            return st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=5).map(tuple)
        case Group():
            return st.lists(pdus(kind.member, form), max_size=20).map(tuple)
    raise AssertionError(kind)


def pdus(pdu: type[Pdu], form: int) -> st.SearchStrategy[Pdu]:
    """Any PDU of a class, with defaults in the fields a version lacks."""
    kinds = {
        name: hint.__metadata__[0] for name, hint in get_type_hints(pdu, include_extras=True).items()
        if name in pdu.__struct_fields__
    }  # fmt: skip
    there = {name: kind for name, kind in kinds.items() if not isinstance(kind, Sized) or kind.size_in(form)}
    return st.builds(pdu, **{name: values(kind, form) for name, kind in there.items()})
