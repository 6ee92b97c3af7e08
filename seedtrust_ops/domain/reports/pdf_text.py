"""Text in a PDF: finds a font for every character, whatever script a name is written in, and measures, wraps and draws.

What stands where on a page is in `pdf_writer`. See docs/decisions/report-fonts.md.
"""

import re
import unicodedata
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

import matplotlib
from fpdf import FPDF
from fpdf.fonts import TTFFont
from matplotlib.ft2font import FT2Font

from seedtrust_ops.domain.reports.report_content import JOINERS

_WEBLATE = Path(str(files("weblate_fonts"))) / "static" / "weblate_fonts"
FONT = "source-sans"
_REGULAR, _BOLD = (_WEBLATE / "source-sans" / "ttf" / f"SourceSans3-{style}.ttf" for style in ("Regular", "Bold"))
FALLBACKS = {
    "kurinto": _WEBLATE / "kurinto" / "ttf" / "KurintoSans-Rg.ttf",
    "dejavu": Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"),
    "kurinto-sc": _WEBLATE / "kurinto" / "ttf" / "KurintoSansSC-Rg.ttf",
    "kurinto-kr": _WEBLATE / "kurinto" / "ttf" / "KurintoSansKR-Rg.ttf",
    "kurinto-tc": _WEBLATE / "kurinto" / "ttf" / "KurintoSansTC-Rg.ttf",
    "kurinto-jp": _WEBLATE / "kurinto" / "ttf" / "KurintoSansJP-Rg.ttf",
}
"""The fonts for what FONT does not have, in the order in which they are tried. A font is loaded when it is needed."""
MAX_REMEMBERED_WIDTHS = 20_000
_ROUNDING = 0.01
_DECOMPOSED = re.compile(r"[^\u0300-\u036f\u3099\u309a][\u0300-\u036f\u3099\u309a]+|[\u1100-\u11ff]+")
"""Letters with their accents apart, and Korean syllables in parts. Not all is normalized: variants of a Han character
in a name would become the same one."""
_RTL_NON_JOINER = re.compile(r"(?<=[\u0590-\u08ff])\u200c")
"""fpdf2 gives this mark the direction of the line, and would swap the halves of a Persian name in an English line. With
a right-to-left mark in its place, the letters beside it are joined, which is how most people write such names."""
_LETTER = re.compile(r"\[U\+[0-9A-F]{4,6}\]|.", re.DOTALL)
_VOWEL_LETTERS = "\u0e33\u0eb3"
"""Thai and Lao vowels that belong to the letter before them, and that Unicode does not count as marks."""
_VIRAMA = 9
"""The combining class of the signs that join two consonants."""


class TextPdf(FPDF):
    """A PDF in which any text can be printed in the current size, color and style (regular or bold)."""

    def __init__(self) -> None:
        super().__init__(orientation="landscape", unit="mm", format="letter")
        self.add_font(FONT, "", _REGULAR)
        self.add_font(FONT, "B", _BOLD)
        # Text that users typed contains no NUL, so none of it can be taken for the number of pages.
        self.alias_nb_pages("\0\0\0")
        self._loaded: set[str] = set()
        self._advances = {style: _advances(self.fonts[f"{FONT}{style}"]) for style in ("", "B")}
        self._shaped_em = lru_cache(maxsize=MAX_REMEMBERED_WIDTHS)(self._measure_shaped)
        self._simple = frozenset(self._advances[""]) & frozenset(self._advances["B"])

    def printable(self, text: str) -> str:
        """Return the text with `[U+XXXX]` for each character that no font has; loads the fonts that it needs.

        Every text must pass here once before it is measured or drawn.
        """
        if text.isascii():
            return text
        text = _DECOMPOSED.sub(lambda letters: unicodedata.normalize("NFC", letters[0]), text)
        if self._simple.issuperset(text):
            return text
        if any(unicodedata.bidirectional(one) == "L" for one in text):
            text = _RTL_NON_JOINER.sub("\u200f", text)
        return "".join(one if self._has_font(one) else f"[U+{ord(one):04X}]" for one in text)

    def text_width(self, text: str) -> float:
        """Return the width in mm."""
        if self._simple.issuperset(text):
            return sum(map(self._advances[self.font_style].__getitem__, text)) * self.font_size / 1_000
        return self._shaped_em(text, self.font_style) * self.font_size

    def wrap(self, text: str, width: float) -> list[str]:
        """Return the lines of a text in a column of `width` mm; only a word that is wider than that is broken."""
        width += _ROUNDING
        space = self.text_width(" ")
        lines, line, used = [], "", 0.0
        for word in text.split(" "):
            needed = self.text_width(word)
            if line and used + space + needed <= width:
                line, used = f"{line} {word}", used + space + needed
                continue
            if line:
                lines.append(line)
            if needed > width:
                *full, word = self._break(word, width)
                lines += full
                needed = self.text_width(word)
            line, used = word, needed
        return [*lines, line]

    def draw(self, text: str, x: float, y: float, width: float, height: float, *, align: str = "L") -> None:
        """Draw one line in a cell of `width` x `height` mm, with a margin at its left and right."""
        if not self._simple.issuperset(text):
            self.set_xy(x, y)
            self.set_text_shaping(True)
            self.cell(width, height, text, align=align)
            self.set_text_shaping(False)
            return
        # Much faster than `cell`.
        left = x + self.c_margin if align == "L" else x + width - self.c_margin - self.text_width(text)
        self.text(left, y + 0.5 * height + 0.3 * self.font_size, text)

    def _measure_shaped(self, text: str, _style: str) -> float:
        """Return the width of a text in the current style, in units of the font's size."""
        self.set_text_shaping(True)
        width = self.get_string_width(text)
        self.set_text_shaping(False)
        return width / self.font_size

    def _has_font(self, character: str) -> bool:
        code = ord(character)
        if code in _characters_of(_REGULAR):
            return True
        family = next((family for family, path in FALLBACKS.items() if code in _characters_of(path)), None)
        if family is not None and family not in self._loaded:
            self.add_font(family, "", FALLBACKS[family])
            self._loaded.add(family)
            self.set_fallback_fonts([one for one in FALLBACKS if one in self._loaded], exact_match=False)
        return family is not None

    def _break(self, word: str, width: float) -> list[str]:
        pieces, used = [""], 0.0
        for letter in _letters(word):
            needed = self.text_width(letter)
            if pieces[-1] and used + needed > width:
                pieces.append("")
                used = 0.0
            pieces[-1] += letter
            used += needed
        return pieces


def split_words(text: str) -> list[str]:
    """Return the parts of a printable text that should stay whole: words, and each code of a missing character."""
    return text.replace("][U+", "] [U+").split(" ")


def _advances(font: object) -> dict[str, float]:
    """Return the widths of the characters that are printed as they are, in thousandths of the font's size."""
    assert isinstance(font, TTFFont), "add_font made it"
    return {chr(code): font.cw[code] for code in font.cmap if not unicodedata.combining(chr(code))}


@cache
def _characters_of(path: Path) -> frozenset[int]:
    return frozenset(FT2Font(str(path)).get_charmap())


def _letters(word: str) -> list[str]:
    """Return the parts that a reader sees as one letter: with accents, vowel signs, and joined consonants."""
    letters: list[str] = []
    for part in _LETTER.findall(word):
        is_joined = (
            unicodedata.category(part[0]).startswith("M")
            or part in JOINERS + _VOWEL_LETTERS
            or (letters and (letters[-1][-1] in JOINERS or unicodedata.combining(letters[-1][-1]) == _VIRAMA))
        )
        if letters and is_joined:
            letters[-1] += part
        else:
            letters.append(part)
    return letters
