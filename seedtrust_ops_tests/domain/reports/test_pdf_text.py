"""Text in a PDF: no character is lost, whatever script it is in, and no word is broken that fits."""

import io

import pytest
from pypdf import PdfReader

from seedtrust_ops.domain.reports.pdf_text import FALLBACKS, FONT, TextPdf
from seedtrust_ops_tests.domain.reports.names import NAMES


@pytest.fixture
def pdf() -> TextPdf:
    pdf = TextPdf()
    pdf.add_page()
    pdf.set_font(FONT, "", 8)
    return pdf


def drawn(pdf: TextPdf, text: str) -> str:
    """Draw a text as it is printed, and return what a reader of the file finds."""
    pdf.draw(pdf.printable(text), 10, 10, 200, 5)
    assert [font.fontkey for font in pdf.fonts.values() if getattr(font, "missing_glyphs", [])] == []
    return str(PdfReader(io.BytesIO(pdf.output())).pages[0].extract_text())


@pytest.mark.parametrize("script", NAMES)
def test_names_are_printed_in_their_own_script(pdf: TextPdf, script: str) -> None:
    name = NAMES[script]
    assert pdf.printable(name) == name
    assert set(name) - set(drawn(pdf, name)) == set()


@pytest.mark.parametrize("script", NAMES)
def test_names_are_whole_in_an_english_sentence(pdf: TextPdf, script: str) -> None:
    """But for the mark between two halves of a Persian name, of which another one keeps the order."""
    found = drawn(pdf, f"Fee for {NAMES[script]}, 24")
    assert set(NAMES[script]) - set(found) <= {"\u200c"}
    assert found.startswith("Fee for ")
    if script == "Persian":
        assert NAMES[script].replace("\u200c", "\u200f") in found


def test_characters_that_no_font_has_are_printed_as_codes(pdf: TextPdf) -> None:
    assert drawn(pdf, "Ma \u1019\u1019 \ue000") == "Ma [U+1019][U+1019] [U+E000]"


def test_fonts_are_loaded_only_for_texts_that_need_them(pdf: TextPdf) -> None:
    pdf.printable("Łukasz \U0010fffd")
    assert not set(FALLBACKS) & set(pdf.fonts)
    pdf.printable("李")
    assert set(FALLBACKS) & set(pdf.fonts) == {"kurinto-sc"}


def test_letters_that_join_are_joined(pdf: TextPdf) -> None:
    for parts in (("क्", "ष"), ("শ্", "র"), ("க்", "ஷ"), ("م", "ح")):
        whole = pdf.text_width(pdf.printable("".join(parts)))
        apart = sum(pdf.text_width(pdf.printable(part)) for part in parts)
        assert whole != pytest.approx(apart, rel=0.02), parts


def test_decomposed_letters_are_printed_as_one(pdf: TextPdf) -> None:
    assert pdf.printable("Jose\u0301 \u1100\u1175\u11b7") == "José 김"
    # Two forms of a character that Unicode counts as one are two names.
    assert pdf.printable("\u795e\ufa19") == "\u795e\ufa19"


def test_text_like_a_placeholder_of_the_library_stays(pdf: TextPdf) -> None:
    assert drawn(pdf, "Page {nb} 李") == "Page {nb} 李"


@pytest.mark.parametrize("text", ["cancelled requests of March", "李小龍 李小龍 李小龍", *NAMES.values()])
def test_lines_end_between_words(pdf: TextPdf, text: str) -> None:
    text = pdf.printable(text)
    width = max(pdf.text_width(word) for word in text.split())
    lines = pdf.wrap(text, width)
    assert " ".join(lines) == text
    assert all(pdf.text_width(line) <= width + 0.1 for line in lines)


@pytest.mark.parametrize("word", ["x" * 500, "李" * 200, "กิตติ์ณัฏฐ์" * 20, "น้ำ" * 60, "क्षत्रिय" * 20, "\u1019" * 100])
def test_longer_words_are_broken_between_letters(pdf: TextPdf, word: str) -> None:
    word = pdf.printable(word)
    for width in range(15, 30):
        lines = pdf.wrap(word, width)
        assert "".join(lines) == word
        assert len(lines) > 1
        assert all(pdf.text_width(line) <= width + 1 for line in lines)
        # No line begins with a vowel sign, the second half of two joined consonants, or in the middle of a code.
        assert {line[0] for line in lines} <= set("x李กตณฏฐน[कतय")
