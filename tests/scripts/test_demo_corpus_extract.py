"""How the demo corpus is taken out of Help pages and the Ding dictionary, and cleaned."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import demo_corpus_clean as clean  # noqa: E402
import demo_corpus_extract as extract  # noqa: E402

# Extraction


def test_help_paragraphs_are_joined_by_id_and_not_by_position():
    english = """<h1 id="hd_1">Save &amp; Close</h1><p>no id</p>
        <p id="par_2" class="paragraph">The <span class="emph">first</span>
           line.<br>Next&nbsp;line.</p><p id="par_3">Only here.</p>"""
    german = """<p id="par_2">Die <b>erste</b> Zeile.<img alt="Symbol">Nächste Zeile.</p>
        <h1 id="hd_1">Speichern &amp; schließen</h1><p id="par_4">Nur hier.</p>"""
    assert list(extract.pair_page(english, german)) == [
        ("Save & Close", "Speichern & schließen"),
        ("The first line. Next line.", "Die erste Zeile. Nächste Zeile."),
    ]


def test_help_switches_give_the_default_variant_else_the_first():
    switch = (
        'Press <span class="switchinline" id="s"> <span hidden="true" id="MACx" class="MAC"><b>Command</b>'
        '</span> <span hidden="true" id="defaultx"><span class="keycode">Ctrl</span></span></span>+A.'
    )
    assert extract.help_blocks(f'<p id="a">{switch}</p>') == [("a", "Press Ctrl+A.")]
    without_default = switch.replace("defaultx", "WINx")
    assert extract.help_blocks(f'<p id="a">{without_default}</p>') == [("a", "Press Command+A.")]


def test_help_code_is_left_out_and_unclosed_tags_do_no_harm():
    html = '<p id="c" class="code">Print 1</p><div><p id="a">One <b>two<p id="b">Three</div><h2 id="d">Four'
    assert extract.help_blocks(html) == [("a", "One two"), ("b", "Three"), ("d", "Four")]


def test_ids_used_several_times_are_joined_in_order_or_not_at_all():
    english = '<p id="a">One</p><p id="a">Two</p><p id="b">Three</p><p id="b">Four</p>'
    german = '<p id="a">Eins</p><p id="a">Zwei</p><p id="b">Drei</p>'
    assert list(extract.pair_page(english, german)) == [("One", "Eins"), ("Two", "Zwei")]


def test_help_folders_are_joined_file_by_file(tmp_path):
    for language, text in (("en", "Sheet"), ("de", "Tabelle")):
        (tmp_path / language / "sub").mkdir(parents=True)
        (tmp_path / language / "sub" / "page.html").write_text(f'<p id="a">{text}</p>', encoding="utf-8")
    (tmp_path / "en" / "only.html").write_text('<p id="a">Alone</p>', encoding="utf-8")
    assert list(extract.help_pairs(tmp_path / "en", tmp_path / "de")) == [("Sheet", "Tabelle")]


@pytest.mark.parametrize(
    "alternative, sentence",
    [
        ("Das ist das Ende. [ugs.]", "Das ist das Ende."),
        ("Ich bin (mir) sicher.", "Ich bin sicher."),
        ("(There are) Only two left.", "Only two left."),
        ("I haven’t got {adj} it!", "I haven't got it!"),
        ("I hope it helps!.", "I hope it helps!"),
        ("Help!", "Help!"),
        ("Wer ist das?", "Wer ist das?"),
        ("Er ist müde/erschöpft.", None),
        ("I rather think …", None),
        ("I rather think...", None),
        ("She knows sth. about it.", None),
        ("Gib jdm. die Hand.", None),
        ("to run sb. down.", None),
        ("Haus {n}", None),
        ("Abk.", None),
        ("Komm (wenn du heute noch Zeit hast).", None),
    ],
)
def test_ding_sentences_lose_their_markup_or_are_left_out(alternative, sentence):
    assert extract.ding_sentence(alternative) == sentence


def test_ding_parts_are_paired_by_position_and_alternatives_by_the_first_usable():
    lines = [
        "# comment :: comment\n",
        "Haus {n} | Das Haus (alt; neu) brennt.; Es brennt. :: house | It is on/in fire.; It burns. [Br.]\n",
        "Eins. Zwei. | Drei vier. :: One two.\n",
        "Wer? Ich? | Komm her! :: Who? | Come here!\n",
    ]
    assert list(extract.ding_pairs(lines)) == [
        ("It burns.", "Das Haus brennt."),
        ("Who?", "Wer? Ich?"),
        ("Come here!", "Komm her!"),
    ]


# Cleaning


def test_paragraphs_are_split_only_where_their_sentences_correspond():
    split = clean.split_pair
    assert split("Choose File - Open. Click OK.", "Wählen Sie Datei – Öffnen. Klicken Sie auf OK.") == [
        ("Choose File - Open.", "Wählen Sie Datei – Öffnen."),
        ("Click OK.", "Klicken Sie auf OK."),
    ]
    whole = [
        ("One sentence here. And two.", "Ein Satz und noch einer."),  # not as many
        ("Now 5 are here. Later 7 came.", "Später kamen 7 an. Jetzt sind 5 da."),  # numbers cross
        ("Stop. A rather long sentence comes after it here.",
         "Ein recht langer Satz kommt hier schon am Anfang. Halt."),  # lengths cross
        ("See e.g. Writer. Or not.", "Siehe z. B. Writer oder nicht."),  # abbreviations end no sentence
    ]
    for pair in whole:
        assert split(*pair) == [pair]
    assert clean.split_sentences("Am 17. September kam er.") == ["Am 17. September kam er."]


@pytest.mark.parametrize(
    "english, german, good",
    [
        ("Open the file.", "Öffnen Sie die Datei.", True),
        ("", "Leer", False),
        ("Open", "", False),
        ("Calc 7.4", "Calc 7,4", False),
        ("1.5 + 2.5 = 4", "1,5 + 2,5 = 4 x", False),
        ("N = A / B", "#N/A", False),
        ("=SUM(A1:A3)", "=SUMME(A1:A3)", False),
        ("Open it.", "Öffnen Sie die Datei, die Sie vorhin gespeichert haben.", False),
        ("The name of the file to open.", "The name of a file that you want.", False),
        ("Chinese 中国 text", "Chinesischer 中国 Text", False),
        ("x" * 401, "y" * 401, False),
    ],
)
def test_pairs_that_teach_nothing_are_left_out(english, german, good):
    assert clean.is_good(english, german) is good


def test_clean_pairs_are_uniform_and_come_once():
    raw = [
        ("It\u2019s  \u201cnew\u201d.\u200b", "Es ist\u00a0neu."),
        ('It\'s "new".', "Es ist neu."),
        ("Click the box.The licence opens now.", "Klicken Sie. Die Lizenz öffnet sich."),
    ]
    assert list(clean.clean_pairs(raw)) == [
        ('It\'s "new".', "Es ist neu."),
        ("Click the box.", "Klicken Sie."),
        ("The licence opens now.", "Die Lizenz öffnet sich."),
    ]


def test_near_copies_are_equal_after_normalising():
    assert clean.normalise("E-Mail 2: Café!") == clean.normalise("email 37 cafe")
    assert clean.normalise("ship") != clean.normalise("shop")
