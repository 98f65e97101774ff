"""Vocabularies: the built-in ones, a user's own, and errors that name the entry."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import yaml

import medvl.text
from medvl.text import (
    Vocabulary,
    find_findings,
    label_report,
    load_prompt_templates,
    load_vocabulary,
    split_sentences,
    vocabulary_names,
)
from medvl.text.phrase_kinds import (
    FORMER,
    HISTORY,
    HISTORY_AFTER,
    IGNORE,
    NEGATION,
    NEGATION_AFTER,
    NEGATION_BOTH,
    PERSISTENCE,
    PSEUDO,
    UNCERTAINTY,
    UNCERTAINTY_AFTER,
    VERSUS,
    kinds_of,
)
from medvl.text.phrase_notation import expand_phrase
from medvl.text.vocabulary import YIELDING_KINDS

VOCABULARIES = Path(medvl.text.__file__).parent / "vocabularies"
CHEXPERT = [
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
]


def test_chexpert14_keeps_chexperts_order():
    assert list(load_vocabulary("chexpert14").names) == CHEXPERT


@pytest.mark.parametrize("name", vocabulary_names())
def test_each_term_is_found(name):
    vocabulary = load_vocabulary(name)
    data = yaml.safe_load((VOCABULARIES / f"{name}.yaml").read_text())
    for finding, entry in data["findings"].items():
        for phrase in entry.get("terms", ()):
            text = " ".join(expand_phrase(phrase)[0]) + "."
            assert finding in {mention.finding for mention in find_findings(text, vocabulary)}, text


def write(tmp_path, data):
    path = tmp_path / "mine.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
    return path


def test_a_users_own_file(tmp_path):
    path = write(
        tmp_path,
        {
            "version": 1,
            "findings": {
                "Hernia": {"terms": ["(hiatal|hiatus)? hernia"], "ignore": ["hernia repair"]},
                "Hip Fracture": {"terms": ["hip fracture"]},
            },
            "cues": {"negation": ["keine"]},
        },
    )
    assert load_vocabulary(path).names == ("Hernia", "Hip Fracture")
    assert label_report("Keine hernia. Hip fracture.", path).tolist() == [0.0, 1.0]
    assert find_findings("Status post hernia repair.", path) == []
    time = path.stat().st_mtime_ns
    path.write_text(path.read_text().replace("Hernia:", "Herniation:"))
    os.utime(path, ns=(time, time))  # as by a coarse clock
    assert load_vocabulary(path).names[0] == "Herniation"


def test_bare_yaml_words_stay_words(tmp_path):
    path = write(tmp_path, "version: 1\nfindings:\n  A: {terms: [on, off, yes]}\n")
    assert label_report("Off.", path).tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r": version must be 1, got 2\.$"),
        ({"findings": {}}, r": findings must map names of findings to their entries\.$"),
        ({"findings": {"A": {}}}, r"findings\.A must have terms or be derived\.$"),
        ({"findings": {"A": {"term": ["a"]}}}, r"findings\.A must have no other keys than \[.*\], got \['term'\]\.$"),
        ({"findings": {"A": {"terms": "a"}}}, r"findings\.A\.terms must be a list of strings"),
        (
            {"findings": {"A": {"terms": ["a(b"]}}},
            r"findings\.A\.terms: the phrase 'a\(b' must have balanced parentheses\.$",
        ),
        ({"findings": {"A": {"terms": ["(a)?"]}}}, r"the phrase '\(a\)\?' must have a word that is not optional\.$"),
        (
            {"findings": {"A": {"terms": ["a!"]}}},
            r"the phrase 'a!' must consist of words, \(a\|b\) and \(\.\.\.\)\?\.$",
        ),
        ({"cues": {"denial": ["nope"]}}, r"cues\.denial must be one of the cues \["),
        ({"structures": {"heart": {}}}, r"structures\.heart must be a mapping with names\.$"),
        (
            {"structures": {"heart": {"names": ["heart"], "odd": {"A": "absent"}}}},
            r"structures\.heart\.odd must be one of the predicates \[\]\.$",
        ),
        ({"extra": 1}, r"mine\.yaml must have no other keys than \[.*\], got \['extra'\]\.$"),
        ({"cues": [1]}, r"cues must be a mapping, got list\.$"),
        ({"findings": {1: {"terms": ["a"]}}}, r"findings\.1 must map a name to an entry with terms\.$"),
        (
            {"findings": {"A": {"derived": True, "compatible_with": ["B"]}}},
            r"compatible_with must be one of 'A', got 'B'\.$",
        ),
        (
            {"predicates": {"odd": ["odd"]}, "structures": {"heart": {"names": ["heart"], "odd": {"B": "absent"}}}},
            r"structures\.heart\.odd must map findings to one of .*, got B: absent\.$",
        ),
        (
            {"predicates": {"odd": ["odd"]}, "structures": {"heart": {"names": ["heart"], "odd": {"A": "gone"}}}},
            r"structures\.heart\.odd must map findings to one of .*, got A: gone\.$",
        ),
        (
            {"predicates": {"odd": ["odd"]}, "structures": {"heart": {"names": ["heart"], "odd": "absent"}}},
            r"structures\.heart\.odd must map findings to one of .*, got 'absent'\.$",
        ),
    ],
)
def test_errors_name_the_entry(tmp_path, change, message):
    data = {"version": 1, "findings": {"A": {"terms": ["a"]}}, **change}
    with pytest.raises(ValueError, match=message):
        load_vocabulary(write(tmp_path, data))


def test_a_file_that_is_no_yaml_or_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"^mine\.yaml is not valid YAML: "):
        load_vocabulary(write(tmp_path, "a: [b"))
    with pytest.raises(
        FileNotFoundError, match=r"^vocabulary must be a file or one of the built-in \[.*\], got 'chexpert15'\.$"
    ):
        load_vocabulary("chexpert15")


def test_a_name_that_no_file_can_have_is_no_file():
    # The arguments of label_report in the wrong order: the system's error said that a file name is too long.
    report = "No effusion. " * 400
    with pytest.raises(FileNotFoundError, match=r"^vocabulary must be a file or one of the built-in"):
        label_report("chexpert14", report)
    with pytest.raises(FileNotFoundError, match=r"^prompt templates must be a file or one of the built-in"):
        load_prompt_templates(report)


def test_a_file_executes_nothing(tmp_path):
    with pytest.raises(ValueError, match="is not valid YAML"):
        load_vocabulary(write(tmp_path, "version: !!python/object/apply:os.getcwd []\n"))


def test_vocabulary_pickles():
    vocabulary = pickle.loads(pickle.dumps(load_vocabulary("chexpert14")))
    assert label_report("No edema.", vocabulary)[5] == 0


def test_vocabularies_show_their_size():
    assert repr(load_vocabulary("chexpert14")) == "Vocabulary(name='chexpert14', findings=14)"
    own = Vocabulary({"version": 1, "findings": {"A": {"terms": ["a"]}}}, source="mine.yaml")
    assert (own.name, own.source, repr(own)) == ("mine.yaml", "mine.yaml", "Vocabulary(name='mine.yaml', findings=1)")


@pytest.mark.parametrize("data", [[], "text", None, {"version": 1}])
def test_what_is_not_a_mapping_with_findings_is_no_vocabulary(data):
    with pytest.raises(ValueError, match=r"^vocabulary must be a mapping with version and findings\.$"):
        Vocabulary(data)


def test_synonyms_are_found_in_any_case_and_spacing():
    groups = [["hiatal hernia", "hiatus hernia", "hernia of the hiatus"]]
    own = Vocabulary({"version": 1, "findings": {"Hernia": {"terms": ["hernia"], "synonyms": groups}}})
    assert own.synonyms_of(" Hiatus   HERNIA ") == ["hiatal hernia", "hernia of the hiatus"]
    assert own.synonyms_of("hernia") == []


def test_a_loaded_vocabulary_is_returned_and_a_file_is_compiled_once(tmp_path):
    path = write(tmp_path, {"version": 1, "findings": {"A": {"terms": ["a"]}}})
    assert load_vocabulary(path) is load_vocabulary(str(path))
    assert load_vocabulary(load_vocabulary(path)) is load_vocabulary(path)


def test_severities_and_sides_of_a_file(tmp_path):
    cues = {"severity": {"huge": ["huge"]}, "side": {"middle": ["central"]}}
    path = write(tmp_path, {"version": 1, "findings": {"A": {"terms": ["mass"]}}, "cues": cues})
    assert [(m.side, m.severity) for m in find_findings("Huge central mass.", path)] == [("middle", "huge")]


# Kinds of phrases that decide a state.
CUES = NEGATION | NEGATION_BOTH | UNCERTAINTY | HISTORY | FORMER | VERSUS
# Kinds that hide cues on purpose, or decide the state themselves.
HIDING = CUES | PSEUDO | IGNORE | NEGATION_AFTER | UNCERTAINTY_AFTER | HISTORY_AFTER | PERSISTENCE
# Phrases that may hide the cue inside them, since they say the same.
SAYS_THE_SAME = {("borderline",), ("suspicious",), ("not",), ("nothing",), ("negative",)}


@pytest.mark.parametrize("name", vocabulary_names())
def test_no_phrase_hides_a_cue(name):
    """A phrase that swallows a cue would turn a state around without a word, unless it gives way to a longer one."""
    phrases = dict(load_vocabulary(name).matcher.phrases)
    kinds = {words: kinds_of(meanings) for words, meanings in phrases.items()}
    cues = {words for words, found in kinds.items() if found & CUES}
    hidden = set()
    for words, found in kinds.items():
        if found & HIDING:
            continue
        yields = found & YIELDING_KINDS
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                if words[start:end] in cues and not (end == len(words) and yields and start):
                    hidden.add((" ".join(words), words[start:end]))
    assert not {phrase for phrase, cue in hidden if cue not in SAYS_THE_SAME}


def test_a_file_may_extend_another(tmp_path):
    path = write(
        tmp_path,
        """
version: 1
extends: chexpert14
findings:
  Cardiomegaly: {terms: [bovine heart]}
  Bochdalek Hernia: {terms: [bochdalek hernia], chronic: true}
cues:
  negation: [nowhere a trace of]
sections:
  findings: [what we saw]
  history: [story]
""",
    )
    vocabulary = load_vocabulary(path)
    assert vocabulary.names == (*CHEXPERT, "Bochdalek Hernia")
    text = "STORY: Edema. WHAT WE SAW: Bovine heart. Nowhere a trace of edema. Prior Bochdalek hernia."
    assert {m.finding: m.assertion for m in find_findings(text, vocabulary)} == {
        "Cardiomegaly": "present",
        "Edema": "absent",
        "Bochdalek Hernia": "present",
    }
    assert label_report("Bovine heart.")[2] != 1, "the built-in vocabulary stays as it is"


def test_files_extend_one_another_by_their_path_and_are_read_again_when_the_base_changes(tmp_path):
    (tmp_path / "base.yaml").write_text("version: 1\nfindings: {A: {terms: [alpha]}}\n")
    path = write(tmp_path, "version: 1\nname: mine\nextends: base.yaml\nfindings: {B: {terms: [beta]}}\n")
    assert load_vocabulary(path).names == ("A", "B")
    (tmp_path / "base.yaml").write_text("version: 1\nfindings: {A: {terms: [gamma]}, C: {terms: [alpha]}}\n")
    assert load_vocabulary(path).names == ("A", "C", "B")


def test_a_change_of_any_file_on_the_way_is_noticed(tmp_path):
    def text(name, extends=""):
        return (
            f"version: 1\n{extends and f'extends: {extends}.yaml'}\nfindings: {{{name}: {{terms: [{name.lower()}]}}}}\n"
        )

    def replace(name, content):  # in the time of the old file, as by a coarse clock or an archive
        path, old = tmp_path / f"{name}.yaml", tmp_path / "old"
        time = path.stat().st_mtime_ns if path.exists() else 10**18
        if path.exists():
            path.rename(old)
        path.write_text(content)
        os.utime(path, ns=(time, time))
        return path

    child = replace("child", text("Ca", "base"))
    replace("base", text("Ba"))
    assert load_vocabulary(child).names == ("Ba", "Ca")
    replace("grand", text("Ga"))
    replace("base", text("Bb", "grand"))
    assert load_vocabulary(child).names == ("Ga", "Bb", "Ca")
    replace("grand", text("Gb"))
    assert load_vocabulary(child).names == ("Gb", "Bb", "Ca")
    replace("base", text("Bc"))
    (tmp_path / "grand.yaml").unlink()
    assert load_vocabulary(child).names == ("Bc", "Ca")
    (tmp_path / "base.yaml").unlink()
    with pytest.raises(ValueError, match=r"^child\.yaml: extends must be a built-in name .*, got 'base\.yaml'\.$"):
        load_vocabulary(child)


def test_a_relative_path_is_that_of_the_working_directory(tmp_path, monkeypatch):
    for name in ("Xx", "Yy"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, f"version: 1\nfindings: {{{name}: {{terms: [word]}}}}\n")
        monkeypatch.chdir(tmp_path / name)
        assert load_vocabulary("mine.yaml").names == (name,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: nowhere\n", r"^mine\.yaml: extends must be a built-in name or the path of a file, got 'nowhere'\.$"),
        ("extends: [chexpert14]\n", r"^mine\.yaml: extends must be a built-in name .*, got \['chexpert14'\]\.$"),
        ("extends: mine.yaml\n", r"^mine\.yaml: extends must not lead back to the file itself, got 'mine\.yaml'\.$"),
        (
            "extends: chexpert14\nfindings: [Edema]\n",
            r"^mine\.yaml\.findings must be a mapping, as in the vocabulary that it extends, got \['Edema'\]\.$",
        ),
        (
            "extends: chexpert14\nfindings: {Edema: {terms: wet}}\n",
            r"^mine\.yaml\.findings\.Edema\.terms must be a list, as in the vocabulary that it extends, got 'wet'\.$",
        ),
        ("findings: {A: {terms: [a]}, A: {terms: [b]}}\n", r"^mine\.yaml is not valid YAML: the key 'A' stands in one"),
        (
            "findings: {A: {terms: [a]}}\nunits: {odd: [m]}\n",
            r"units must have no other keys than .*, got \['odd'\]\.$",
        ),
        (
            "findings: {A: {terms: [a]}}\nwords: {odd: [m]}\n",
            r"words must have no other keys than .*, got \['odd'\]\.$",
        ),
        ("findings: {A: {terms: [a]}}\nsections: {odd: m}\n", r"sections\.odd must be a list of strings"),
        ("findings: {A: {terms: [a]}}\nendings: m\n", r"endings must be a list of strings"),
    ],
)
def test_errors_of_files_that_extend_and_describe_a_language(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load_vocabulary(write(tmp_path, "version: 1\n" + text))


def test_a_language_of_its_own_has_its_own_cues_letters_endings_units_and_headers(tmp_path):
    path = write(
        tmp_path,
        """
version: 1
language: elbonian
letters: {ø: oe}
endings: [ix]
units: {counted: [ribbo]}
abbreviations: {inside: [grt], closing: [snt]}
sections: {indication: [quéstio], findings: [vídi]}
findings: {Hole: {terms: [tønna]}}
cues: {negation: [nüll]}
""",
    )
    names = [(m.finding, m.assertion) for m in find_findings("Nüll grt. tønnaix.", path)]
    assert names == [("Hole", "absent")]
    assert label_report("No toenna", path).tolist() == [1.0], "English cues do not count"
    assert label_report("Quéstio: tønna? Vídi: nüll tønna.", path).tolist() == [0.0]
    vocabulary = load_vocabulary(path)
    text = "Tønna snt. Nüll 6. Ribbo. Ad snt. ix"
    assert [text[a:b] for a, b in split_sentences(text, vocabulary.conventions)] == [
        "Tønna snt.",
        "Nüll 6. Ribbo.",
        "Ad snt. ix",
    ]


def test_a_long_chain_of_vocabularies_is_refused(tmp_path):
    for number in range(102):
        (tmp_path / f"{number}.yaml").write_text(f"extends: ./{number + 1}.yaml\nversion: 1\n")
    with pytest.raises(ValueError, match=r"^100\.yaml: extends: more than 100 files extend one another\.$"):
        load_vocabulary(tmp_path / "0.yaml")
