"""One spelling for one word: the Unicode form of texts and of words that are looked up.

``nfc``
    Unicode NFC: a letter and its accents are one character where there is one. U+02BC becomes U+2019, which the
    tokenizer ``words`` turns into an apostrophe.
``nfkc``
    The same with Unicode NFKC: full-width letters, ligatures and superscripts become plain ones. The Thai and Lao
    vowel am, which NFKC takes apart, stays one character.
``none``
    Nothing is changed.

Most text is in NFC already. :class:`LineNormalizer` finds the lines that are not by Unicode's quick check, compiled,
and leaves all others as they are.

Source: Unicode Standard Annex 15, Unicode Normalization Forms, section 9.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from jose_embed.compute.jit import jit
from jose_embed.errors import ConfigError

FORMS: Final = ("nfc", "nfkc", "none")

_UNICODE_FORMS: Final[dict[str, Literal["NFC", "NFKC"]]] = {"nfc": "NFC", "nfkc": "NFKC"}
_MODIFIER_APOSTROPHE, _APOSTROPHE = "\u02bc", "\u2019"
_VOWEL_AM: Final = (("\u0e4d\u0e32", "\u0e33"), ("\u0ecd\u0eb2", "\u0eb3"))  # decomposed, and as it is written
_SIGMA, _DOTTED_I = "\u03a3", "\u0130"
_UNSETTLED: Final = 255  # the class of a character that may change; the others' is their combining class
_CHUNK: Final = 256


def check_form(form: str) -> str:
    """The form, if there is such a one.

    Raises:
        ConfigError: there is not.
    """
    if form not in FORMS:
        raise ConfigError(f"normalize is {str(form)[:100]!r}; it must be one of {', '.join(FORMS)}")
    return form


def normalized(text: str, form: str, *, lower_cases: bool = False) -> str:
    """A text in a Unicode form.

    Args:
        text: Any text.
        form: One of :data:`FORMS`.
        lower_cases: Whether a tokenizer will lower-case it. If its lower case would not be in the form (a capital may
            lack a character that its small letter has), the lower case is returned.

    Example:
        >>> normalized("cafe" + chr(0x301), "nfc") == "caf" + chr(0xE9), normalized("Ｃａｆｅ ﬁn", "nfkc")
        (True, 'Cafe fin')
    """
    if form == "none" or text.isascii():
        return text
    found = _in_form(text, form)
    if lower_cases:
        lower = lowered(found)
        if not unicodedata.is_normalized(_UNICODE_FORMS["nfc"], lower):
            found = _in_form(lower, form)
    return found


def lowered(text: str) -> str:
    """The lower case, character by character; a capital sigma stays, because what follows decides about it."""
    return _SIGMA.join(part.lower() for part in text.replace(_DOTTED_I, "i").split(_SIGMA))


def _in_form(text: str, form: str) -> str:
    found = unicodedata.normalize(_UNICODE_FORMS[form], text)
    if form == "nfkc":
        for apart, whole in _VOWEL_AM:
            found = found.replace(apart, whole)
    return found.replace(_MODIFIER_APOSTROPHE, _APOSTROPHE)


class LineNormalizer:
    """:func:`normalized` for the lines of a block of text.

    Args:
        form: One of :data:`FORMS`.
        lower_cases: Whether a tokenizer will lower-case them.

    Example:
        >>> LineNormalizer("nfc")("plain\\ncafe\u0301\\n".encode()).decode() == "plain\\ncaf\u00e9\\n"
        True
    """

    def __init__(self, form: str, *, lower_cases: bool = False) -> None:
        self._form = form
        self._lower_cases = lower_cases

    def __call__(self, data: bytes) -> bytes:
        """The same lines in the form; the same object if nothing changes.

        Args:
            data: Valid UTF-8.
        """
        if self._form == "none" or data.isascii():
            return data
        text = np.frombuffer(data, np.uint8)
        spans = np.empty((data.count(b"\n") + 1, 2), np.int64)
        n_lines = _unsettled_lines(text, _classes(self._form), self._form == "nfc", spans)
        pieces: list[bytes] = []
        last = 0
        for start, end in spans[:n_lines].tolist():
            line = data[start:end]
            pieces += (data[last:start], normalized(line.decode(), self._form, lower_cases=self._lower_cases).encode())
            last = end
        return b"".join([*pieces, data[last:]]) if pieces else data


@functools.cache
def _classes(form: str) -> npt.NDArray[np.uint8]:
    """uint8 (0x110000,), the class of each code point."""
    classes = np.zeros(0x110000, np.uint8)
    # Planes 2 and 3 hold ideographs, of which those for compatibility (U+2F800 ff.) decompose; the rest of 14 nothing.
    for code in (*range(0xA0, 0x20000), *range(0x2F800, 0x2FA20)):
        character = chr(code)
        classes[code] = max(classes[code], unicodedata.combining(character))  # it may be unsettled already
        parts = unicodedata.decomposition(character)
        if not parts or (form == "nfc" and parts.startswith("<")):
            continue
        if unicodedata.normalize(_UNICODE_FORMS[form], character) != character:
            classes[code] = _UNSETTLED
        elif len(codes := parts.split()) == 2:
            classes[int(codes[1], 16)] = _UNSETTLED  # the character before it may absorb it
    classes[0x1161:0x1176] = classes[0x11A8:0x11C3] = _UNSETTLED  # vowels and finals of Hangul
    classes[ord(_MODIFIER_APOSTROPHE)] = _UNSETTLED
    classes.setflags(write=False)
    return classes


@jit
def _unsettled_lines(
    text: npt.NDArray[np.uint8], classes: npt.NDArray[np.uint8], is_nfc: bool, spans: npt.NDArray[np.int64]
) -> int:
    """Find the lines that are not in a form for sure.

    For NFC, chunks are passed over whose first and second bytes of characters stand for class 0: Latin, Cyrillic,
    common punctuation, kana, ideographs, Hangul. The two spaces U+2000 and U+2001, which become other spaces, count as
    class 0. The loop over a chunk has no branches, so that it is vectorized; it takes 7 GB/s.

    Args:
        text: uint8 (n,), valid UTF-8.
        classes: uint8 (0x110000,): the canonical combining class, or 255 for a character that may change.
        is_nfc: Whether the form is NFC.
        spans: int64 (n_lines, 2): start and end of each such line; written to.

    Returns:
        The number of such lines.
    """
    size, i, n, last = len(text), 0, 0, 0
    while i < size:
        stop = min(i + _CHUNK, size)
        if is_nfc and i + _CHUNK + 2 <= size:
            found = False
            for k in range(_CHUNK):
                j = np.uint64(i) + np.uint64(k)
                b, second, third = text[j], text[j + np.uint64(1)], text[j + np.uint64(2)]
                found |= (
                    (b >= np.uint8(0xCA))
                    & (b != np.uint8(0xD0))
                    & (b != np.uint8(0xD1))
                    & ((b < np.uint8(0xE4)) | (b > np.uint8(0xE9)))
                    & ((b < np.uint8(0xEB)) | (b > np.uint8(0xED)))
                    & ((b != np.uint8(0xE2)) | (second != np.uint8(0x80)))
                    & ((b != np.uint8(0xEA)) | (second < np.uint8(0xB0)))
                    & ((b != np.uint8(0xEF)) | (second < np.uint8(0xBC)))
                    & (
                        (b != np.uint8(0xE3))
                        | ((second == np.uint8(0x80)) & (third >= np.uint8(0xAA)))
                        | ((second == np.uint8(0x82)) & (third >= np.uint8(0x99)) & (third <= np.uint8(0x9A)))
                    )
                )
            if not found:
                i, last = stop, 0
                continue
        while i < stop:
            c = int(text[i])
            at = i
            i += 1
            if c < 0xC0:  # ASCII, or the rest of a character that began in a chunk without interest
                last = 0
                continue
            more = 1 + (c >= 0xE0) + (c >= 0xF0)
            c &= 0x3F >> more
            for _ in range(more):
                c = c << 6 | (int(text[i]) & 0x3F)
                i += 1
            kind = int(classes[c])
            if kind == _UNSETTLED or (kind != 0 and kind < last):
                start = at
                while start > 0 and text[start - 1] != 10:
                    start -= 1
                while i < size and text[i] != 10:
                    i += 1
                spans[n, 0], spans[n, 1] = start, i
                n += 1
                kind = 0
            last = kind
    return n
