"""The phrase matcher: notation of phrases, plurals, misspellings, the longest match."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medvl.text.phrase_notation import expand_phrase
from medvl.text.phrases import PhraseMatcher, find_words, word_spans


def matcher(*phrases, inflect=True):
    made = PhraseMatcher()
    for phrase in phrases:
        made.add(phrase, phrase, inflect)
    made.compile()
    return made


def match(made, text):
    return made.match(made.normalize_words(text.split()))


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("(a|b c)? d-e", [("a", "d", "e"), ("b", "c", "d", "e"), ("d", "e")]),
        ("A, B", [("a", ",", "b")]),
        ("((a|b) c)? d", [("a", "c", "d"), ("b", "c", "d"), ("d",)]),
        ("(a|a) b", [("a", "b")]),
        ("radiologist's", [("radiologist's",)]),
    ],
)
def test_expand_phrase(phrase, expected):
    assert expand_phrase(phrase) == expected


@pytest.mark.parametrize("phrase", ["", "a!", "1", "- -"])
def test_a_phrase_consists_of_words(phrase):
    with pytest.raises(ValueError, match=r"^the phrase '.*' must consist of words, \(a\|b\) and \(\.\.\.\)\?\.$"):
        expand_phrase(phrase)


@pytest.mark.parametrize("phrase", ["(a", "a)", "((a)", "a) b"])
def test_parentheses_are_balanced(phrase):
    with pytest.raises(ValueError, match="must have balanced parentheses"):
        expand_phrase(phrase)


def test_the_longest_phrase_wins_and_the_next_begins_behind_it():
    made = matcher("a", "a b c", "c d", "d")
    assert match(made, "a b c d") == [(["a b c"], 0, 3), (["d"], 3, 4)]
    assert match(made, "a b d") == [(["a"], 0, 1), (["d"], 2, 3)]
    assert match(made, "x a b") == [(["a"], 1, 2)]
    assert match(made, "") == []


def test_a_prefix_of_a_phrase_is_skipped_as_one_word():
    assert match(matcher("a b", "b c"), "a b c") == [(["a b"], 0, 2)]
    assert match(matcher("a b c", "b"), "a b d") == [(["b"], 1, 2)]


def test_a_phrase_may_have_several_meanings_each_once():
    made = PhraseMatcher()
    for meaning in (1, 2, 1):
        made.add("edema", meaning)
    made.add_punctuation(",", 3)
    made.compile()
    assert match(made, "edema ,") == [([1, 2], 0, 1), ([3], 1, 2)]


@pytest.mark.parametrize(
    ("word", "plural"), [("effusion", "effusions"), ("opacity", "opacities"), ("mass", "masses"), ("box", "boxes")]
)
def test_plurals_stand_for_their_singular(word, plural):
    assert matcher(word).normalize_words([plural]) == [word]
    assert matcher(word, inflect=False).normalize_words([plural]) == [None]


def test_short_words_and_words_with_an_apostrophe_have_no_plural():
    assert matcher("lv").normalize_words(["lvs"]) == [None]
    assert matcher("a's").normalize_words(["a'ss"]) == [None]


def test_a_plural_in_a_phrase_is_the_same_word():
    made = matcher("effusion", "effusions seen")
    assert match(made, "effusion seen") == [(["effusions seen"], 0, 2)]


def test_a_plural_that_is_a_cue_stays_itself():
    made = PhraseMatcher()
    made.add("clears", "cue")
    made.add("clear", "finding", inflect=True)
    made.compile()
    assert match(made, "clears clear") == [(["cue"], 0, 1), (["finding"], 1, 2)]


@pytest.mark.parametrize("misspelled", ["efusion", "effusino", "efffusion", "effuzion", "effusionx"])
def test_one_edit_is_corrected(misspelled):
    assert matcher("effusion").normalize_words([misspelled]) == ["effusion"]


@pytest.mark.parametrize("other", ["infusion", "ffusion", "effuznon", "eeffuison", "efus", "effusion" + "n" * 23])
def test_more_edits_or_another_first_letter_are_not(other):
    assert matcher("effusion").normalize_words([other]) == [None]


def test_a_long_word_is_corrected_up_to_thirty_letters():
    word = "e" + "abcdefghijklmnopqrstuvwxyz" + "abc"  # 30 letters
    assert matcher(word).normalize_words([word[:-1] + "z"]) == [word]
    assert matcher(word + "d").normalize_words([word + "z"]) == [None]


def test_a_word_between_two_words_is_not_corrected():
    assert matcher("pleurals", "pleurale").normalize_words(["pleuralx"]) == [None]


def test_short_words_are_not_corrected():
    assert matcher("masses").normalize_words(["massex"]) == [None]
    assert matcher("nodules").normalize_words(["nodulex"]) == ["nodules"]
    assert matcher("fracture", inflect=False).normalize_words(["fractur"]) == [None]


def test_misspellings_of_a_vocabulary_do_not_replace_its_words():
    made = PhraseMatcher()
    made.add("hernia", 1)
    made.add("heart", 2)
    made.add_misspellings("hernia", ["hernea", "heart"])
    made.compile()
    assert made.normalize_words(["hernea", "heart", "hart"]) == ["hernia", "heart", None]


def test_unknown_words_are_remembered_only_up_to_a_limit(monkeypatch):
    monkeypatch.setattr("medvl.text.phrases._MAX_KNOWN_WORDS", 5)
    made = matcher("effusion")  # with its two plurals, three words
    assert made.normalize_words([f"unknown{letter}" for letter in "abcd"]) == [None] * 4
    assert made.normalize_words(["efusion"]) == ["effusion"]
    assert len(made._words) == 5


def test_a_yielding_phrase_gives_way_to_one_that_reaches_further():
    matcher = PhraseMatcher()
    matcher.add("is", "verb")
    matcher.add("is negative", "denied", yielding=True)
    matcher.add("is absent", "denied")
    matcher.add("(negative|absent) for", "denies")
    matcher.compile()
    assert matcher.match(["is", "negative", "for"]) == [(["verb"], 0, 1), (["denies"], 1, 3)]
    assert matcher.match(["is", "negative", "now"]) == [(["denied"], 0, 2)]
    assert matcher.match(["is", "absent", "for"]) == [(["denied"], 0, 2)]


def test_contractions_with_and_without_their_apostrophe():
    matcher = PhraseMatcher()
    matcher.add("is not seen", "denied")
    matcher.compile()
    for text in ("is not seen", "isn't seen", "isnt seen"):
        words = matcher.normalize_words(text.split())
        assert matcher.match(words) == [(["denied"], 0, len(words))]


def test_non_belongs_to_its_word():
    assert find_words("non-displaced, non displaced") == ["non-displaced", ",", "non displaced"]
    matcher = PhraseMatcher()
    matcher.add("nonenlarged", "normal")
    matcher.compile()
    assert matcher.normalize_words(["non-enlarged", "non enlarged", "non-displaced"]) == ["nonenlarged"] * 2 + [None]


def test_kept_words_are_not_corrected():
    matcher = PhraseMatcher()
    matcher.add("infection", "found", inflect=True)
    matcher.keep_words(["injection"])
    matcher.compile()
    assert matcher.normalize_words(["injection", "infectoin", "infectons"]) == [None, "infection", "infection"]


def test_all_phrases_can_be_listed():
    matcher = PhraseMatcher()
    matcher.add("a (b)?", 1)
    matcher.add("a", 2)
    matcher.compile()
    assert dict(matcher.phrases) == {("a",): [1, 2], ("a", "b"): [1]}
    assert matcher.words == {"a", "b"}


@pytest.mark.parametrize(
    "text",
    [
        "no acute, or chronic disease (unchanged) 12 mm.",
        "non contrast ct, non-displaced and canon ball",
        "isn't 'quoted' o'clock",
        "a - b -- c-d --- e\n- f",
        "edema; effusion: none / pneumonia? a&b|c",
        "l1, t12\tand\r\nx_y  non  z",
        "gr\xf6\xdfe, na\xefve",
        "lone surrogate \ud800, and words",
        "",
    ],
)
def test_words_are_those_of_the_pattern_whichever_way_they_are_found(text):
    spans = word_spans(text)
    assert find_words(text) == [text[start:end] for start, end in spans]


@given(st.text(st.sampled_from("ano xz',.-;:?/&|\n\t9(\u2013\xe9"), max_size=40))
def test_words_are_those_of_the_pattern_in_any_text(text):
    assert find_words(text) == [text[start:end] for start, end in word_spans(text)]


def longest(phrases, words, index):
    """Where the longest phrase at a place ends, by comparing each; the place itself if none begins there."""
    ends = [end for end in range(index + 1, len(words) + 1) if tuple(words[index:end]) in phrases]
    return max(ends, default=index)


def matched(phrases, yielding, words):
    """What :meth:`PhraseMatcher.match` is to find, from all word sequences of the phrases, each with its meanings."""
    found, index = [], 0
    while index < len(words):
        end = longest(phrases, words, index)
        if tuple(words[index:end]) in yielding:
            for start in range(index + 1, end):
                if longest(phrases, words, start) > end:
                    end = longest(phrases, words[:start], index)
                    break
        if end > index:
            found.append((phrases[tuple(words[index:end])], index, end))
        index = max(end, index + 1)
    return found


WORDS = st.sampled_from("abc")
PARTS = st.recursive(
    WORDS,
    lambda parts: (
        st.lists(st.lists(parts, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=3)
        .map("|".join)
        .map("({})".format)
        | parts.map("({})?".format)
    ),
    max_leaves=5,
)
PHRASES = st.tuples(st.lists(PARTS, min_size=1, max_size=3), WORDS).map(lambda drawn: " ".join([*drawn[0], drawn[1]]))


@given(st.lists(st.tuples(PHRASES, st.booleans()), max_size=6), st.lists(WORDS, max_size=9))
@example([("a b", True), ("b c", False)], ["a", "b", "c"])
@example([("a", False), ("a b c", True), ("c a", False)], ["a", "b", "c", "a"])
@example([("(a|b) c", False), ("a (c)?", False)], ["b", "c", "a", "c", "a"])
@example([("(a (b)? c)? a", False), ("c a", False)], ["a", "c", "a", "c", "a"])
def test_matches_are_those_of_all_word_sequences_of_the_phrases(phrases, words):
    made, sequences, yielding = PhraseMatcher(), {}, set()
    for meaning, (phrase, gives_way) in enumerate(phrases):
        made.add(phrase, meaning, yielding=gives_way)
        for sequence in expand_phrase(phrase):
            sequences.setdefault(sequence, []).append(meaning)
            yielding.update([sequence] if gives_way else [])
    made.compile()
    assert dict(made.phrases) == sequences
    assert made.match(words) == matched(sequences, yielding, words)


def test_a_contraction_stands_for_two_words_wherever_they_meet():
    made = matcher("(it|this)? (is|does|can)? not (now)? seen", inflect=False)
    for text in ("it is not seen", "it isn't seen", "this doesn't now seen", "can't seen", "not seen", "it not seen"):
        words = text.split()
        assert [(start, end) for _, start, end in match(made, text)] == [(0, len(words))], text
    assert match(made, "it isn't not seen") == [(["(it|this)? (is|does|can)? not (now)? seen"], 2, 4)]


def test_alternatives_that_go_on_alike_take_no_more_nodes():
    phrase = " ".join(f"(a{letter}|b{letter}|c{letter})?" for letter in "abcdefghij") + " end"  # 4 ** 10 sequences
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDVL_MAX_ALTERNATIVES", str(4**10))
        made = matcher(phrase, inflect=False)
    assert match(made, "aa cc bj end") == [([phrase], 0, 4)]
    assert match(made, "aa ca end") == [([phrase], 1, 3)]
    assert match(made, "end") == [([phrase], 0, 1)]
    nodes, left = {}, [made._root]
    while left:
        node = left.pop()
        if id(node) not in nodes:
            nodes[id(node)] = node
            left += [child for child in node.values() if isinstance(child, dict)]
    assert len(nodes) == 1 + 30 + 1
