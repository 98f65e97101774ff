"""What a trained vocabulary tells of single reports: nothing."""

from __future__ import annotations

import warnings

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from medvl.transforms import rare_tokens, train_tokenizer
from medvl.transforms.tokenizer_training import SPECIAL_TOKENS

COMMON = "No pleural effusion. Heart size is normal, 12 mm."
RARE = [
    "Zyxwquist, Jonquil", "MRN 48213759", "tel. (0471) 555-01937", "born 03/11/1947", "qzk-77x", "ZYXWQUIST", "O'Zyxwq",
    "zyxwquist's", "Žižkovská", "Ævarsdóttir", "mail a.quorn@vex.example", "Łukaszewicz", "Dr.Wrzk", "JonquilZyxwquist",
    "Иванова", "Ξενάκης", "山田太郎", "김철수", "サトウ",
]  # fmt: skip


def entries(tokenizer):
    return {token.removeprefix("##") for token in tokenizer.get_vocab()} - set(SPECIAL_TOKENS)


@pytest.mark.filterwarnings("ignore:.*of the words of the texts occur")
@pytest.mark.parametrize("identifier", RARE)
@pytest.mark.parametrize("lowercase", [True, False])
def test_nothing_of_a_rare_word_is_in_the_vocabulary(identifier, lowercase):
    common = [COMMON] * 5
    # the patient has many reports, and says it often
    texts = [*common, *[f"{identifier} {identifier}. {COMMON}"] * 20]
    patients = [*({f"p{i}"} for i in range(5)), *[{"one"}] * 20]
    found = entries(train_tokenizer(texts, lowercase=lowercase, patients=patients))
    without = entries(train_tokenizer(common, lowercase=lowercase))
    assert all(len(entry) == 1 for entry in found - without)
    if identifier[0] >= "\u2e80" and not (lowercase and identifier == "김철수"):  # of which lowercase makes letters
        assert found == without  # a character of these scripts is a word
    assert {"effusion", "pleural"} <= found
    # four more patients, and a word is common
    shared = entries(train_tokenizer([*common, *[identifier] * 5], lowercase=lowercase))
    assert any(len(entry) > 1 for entry in shared - without) or identifier in ("qzk-77x", "山田太郎")


def test_the_patients_of_a_word_are_counted_and_not_its_reports():
    texts = [COMMON] * 5 + ["quorn"] * 5
    for owners, kept in (("vwxyz", True), ("vwxyy", False), ("vvvvv", False)):
        patients = [{i} for i in range(5)] + [{owner} for owner in owners]
        assert ("quorn" in train_tokenizer(texts, patients=patients).get_vocab()) is kept
        several = [*texts[:5], "quorn"], [*patients[:5], set(owners)]
        assert ("quorn" in train_tokenizer(several[0], patients=several[1]).get_vocab()) is kept


def test_a_text_of_no_patient_is_learned_whole():
    tokenizer = train_tokenizer([COMMON, "COVID pneumonia"], patients=[{"p"}, set()])
    assert tokenizer.tokenize("COVID pneumonia") == ["covid", "pneumonia"]
    assert tokenizer.tokenize("heart") == ["h", "##e", "##a", "##r", "##t"]


def test_digits_are_split_one_by_one_however_frequent():
    tokenizer = train_tokenizer(["12 mm, 2019, L4, 1.5 cm, x10"] * 50)
    assert not [token for token in entries(tokenizer) if len(token) > 1 and any(c.isdigit() for c in token)]
    assert tokenizer.tokenize("2019 12mm") == ["2", "0", "1", "9", "1", "2", "mm"]


def test_reports_of_few_patients_alone_are_spelled():
    with pytest.warns(
        RuntimeWarning, match=r"^0 % of the words of the texts occur in the reports of at least 5 patients"
    ):
        tokenizer = train_tokenizer(["No effusion."] * 3)
    assert {len(entry) for entry in entries(tokenizer)} == {1}
    assert tokenizer.unk_token_id not in tokenizer("no effusion")["input_ids"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_tokenizer([COMMON] * 5)
        train_tokenizer([COMMON], min_patients=1)


def test_rare_entries_of_any_tokenizer_are_listed():
    texts = [*[COMMON] * 5, "Quorn effusional 4821"]
    loose = train_tokenizer(texts, min_patients=1)
    listed = rare_tokens(loose, texts)
    assert listed["quorn"] == 1
    assert "effusion" not in listed  # a part of a rare word, and a common word
    assert set(listed) <= set(loose.get_vocab())
    assert rare_tokens(train_tokenizer(texts), texts) == {}
    assert rare_tokens(loose, texts, min_patients=1) == {}
    assert rare_tokens(loose, texts, patients=[{i} for i in range(5)] + [set()]) == {}

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    pieces.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    listed = rare_tokens(PreTrainedTokenizerFast(tokenizer_object=pieces), texts)
    assert "Quorn" in {token.removeprefix("Ġ") for token in listed}
    assert "Ġ4821" in listed
    assert "Ġnormal" not in listed


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"^patients must have one entry for each of the 2 texts, got 1\.$"):
        train_tokenizer(["a", "b"], patients=[{"p"}])
    with pytest.raises(ValueError, match=r"^min_patients must be at least 1, got 0\.$"):
        train_tokenizer(["a"], min_patients=0)
