"""What a slice says of patient and study, in a form that a new DICOM object can carry; needs the extra `dicom`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

from pydicom import Dataset, Sequence
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.config import strict_reading
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.valuerep import DA, PN_DELIMS, TEXT_VR_DELIMS, TM, PersonName

_ONE_TEXT, _TEXTS = ("ST", "LT", "UT"), ("SH", "LO", "UC", "PN")
_ESCAPED = ["utf-8", "iso2022_jp", "iso2022_jp_2", "euc_kr", "iso_ir_58", "shift_jis"]  # escapes tell them apart
_ESCAPE = re.compile(rb"\x1b[$()-]{1,2}[A-Z]")
_CHECKS: dict[str, Callable[[Any], object]] = {"DA": DA, "TM": TM}
_SEXES = ("M", "F", "O", "")


class Attributes:
    """dataset: a slice's attributes, without pixels and private ones, in UTF-8.

    emptied: keywords of those whose values are not valid, and empty in `dataset`. respelt: of those whose text is not
    in the character set that the slice states; it is read as UTF-8 where it can be, else "?" stands for each odd byte.
    """

    def __init__(self, source: Dataset) -> None:
        self.emptied: list[str] = []
        self.respelt: list[str] = []
        self._encodings = _encodings(source)
        self.dataset = self._copied(source)
        self.dataset.SpecificCharacterSet = "ISO_IR 192"

    def _copied(self, source: Dataset) -> Dataset:
        copy = Dataset()
        for tag in source.keys():  # noqa: SIM118, since iterating over the data set decodes its values
            if keyword := keyword_for_tag(tag):
                try:
                    vr, value = self._value(source, tag, keyword)
                    copy.add_new(tag, vr, value)
                except (ValueError, TypeError, OverflowError, NotImplementedError):
                    self.emptied.append(keyword)
                    copy.add_new(tag, dictionary_VR(tag), None)
        return copy

    def _value(self, source: Dataset, tag: int, keyword: str) -> tuple[str, Any]:
        raw = source.get_item(tag)
        vr = raw.VR or dictionary_VR(tag)
        if vr in (*_ONE_TEXT, *_TEXTS) and isinstance(raw.value, bytes):
            text = self._text(raw.value, vr, keyword)
            parts = [text] if vr in _ONE_TEXT else [part.strip() for part in text.split("\\")]
            values = [PersonName(part) for part in parts] if vr == "PN" else parts
            return vr, values if len(values) > 1 else values[0]
        vr, value = source[tag].VR, source[tag].value
        if vr == "SQ":
            return vr, Sequence([self._copied(item) for item in value])
        if value and vr in _CHECKS:
            _CHECKS[vr](value)
        if keyword == "PatientSex" and (value or "") not in _SEXES:
            raise ValueError("none of the values that DICOM defines")
        return vr, value

    def _text(self, value: bytes, vr: str, keyword: str) -> str:
        value = value.rstrip(b"\0 ")
        delimiters = PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS
        text = _decoded(lambda: decode_bytes(value, self._encodings, delimiters))
        for encoding in self._encodings[1:]:  # escapes are left out, or not repeated after a delimiter
            text = text or _decoded(partial(_ESCAPE.sub(b"", value).decode, encoding))
        if text is None:
            self.respelt.append(keyword)
            text = _decoded(lambda: decode_bytes(value, _ESCAPED, delimiters))
        return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in value) if text is None else text


def _decoded(decode: Callable[[], str]) -> str | None:
    """None for bytes that are not valid, or make control characters."""
    try:
        with strict_reading():
            text = decode().replace("\x1b$)A", "")  # which pydicom leaves in Chinese
    except (ValueError, LookupError):
        return None
    return None if any(unicodedata.category(each) == "Cc" and each not in "\t\n\f\r" for each in text) else text


def _encodings(source: Dataset) -> list[str]:
    """Python's names of the stated character sets; ASCII, which is DICOM's default, for none and unknown ones."""
    try:
        with strict_reading():
            stated = convert_encodings(source.get("SpecificCharacterSet"))
    except (ValueError, LookupError):
        return ["ascii"]
    return ["ascii" if each == "iso8859" else each for each in stated]
