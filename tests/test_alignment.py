"""Two readings of one text: where tokens end in bytes, and which pair up, for tokenizers made by code."""

import random

import pytest
from tokenizers_made import byte_level, lower_case, sentencepiece

from harness.models.alignment import TextAligner, TokenBytes, offsets, pair
from harness.models.chat_format import TextCodec

TEXT = "Ärger mit 12 Äpfeln: naïve 数学!\n\n  x = 3 +4 🙂"
WORDS = ("Äpf", "mit", " mi", "na", "ïve", "数", " x", "  ", "12", "🙂", "\n\n")
MADE = {
    "bytes": byte_level(),
    "words": byte_level(WORDS),
    "halves": byte_level((b" n", b"a\xc3", b"\xaf", b"\xe6\x95", b"\xb0\xe5", b"\xf0\x9f\x99", b"12 \xc3", b"= 3")),
    "llama": sentencepiece((" mit", " x", "12", "na", "= 3")),
    "gemma": sentencepiece(("mit ", "x ", "12", "+4", "  "), prefix=False),
}


def drawn(dice):
    """Words of a tokenizer that begin and end anywhere, inside characters too, and a text that holds many of them."""
    text = "".join(dice.choices("ab 1\nÄï数🙂", k=dice.randint(0, 14)))
    data = text.encode()
    cuts = [sorted(dice.choices(range(len(data) + 1), k=2)) for _ in range(dice.randint(0, 8))]
    return [data[a : min(b, a + 5)] for a, b in cuts if b - a > 1], text


def aligned(ours, theirs, text, prompt="Q: 1\n"):
    """(aligner, the student's reading, the teacher's ids, pairs) of a text behind a prompt."""
    student, teacher = TextCodec(ours), TextCodec(theirs)
    aligner = TextAligner(student, teacher)
    asked = [codec.encode(prompt) for codec in (student, teacher)]
    ids = student.response_ids(asked[0], text, ended=False)
    said = aligner.reads(asked[0], ids, {student.end_id})
    other, ends = aligner.teacher_ids(asked[1], said)
    return aligner, said, ids, other, pair(said.ends, ends)


def check(ours, theirs, text):
    """What a pair is, by the bytes of single tokens: equal on both sides, never to be split, and nothing is left."""
    aligner, said, ids, other, found = aligned(ours, theirs, text)
    assert said.text == text
    pieces = [[table.of(i) for i in side] for table, side in zip(aligner.bytes, (ids, other), strict=True)]
    for a, b in found:
        left, right = ([side[i] for i in rows] for side, rows in zip(pieces, (a, b), strict=True))
        assert b"".join(left).strip(b" ") == b"".join(right).strip(b" ")
        starts = [{len(b"".join(part[:n])) for n in range(1, len(part))} for part in (left, right)]
        if b"".join(left) == b"".join(right):
            assert not starts[0] & starts[1], "a pair that could be two"
    for side, rows in zip((ids, other), zip(*found, strict=True) if found else ((), ()), strict=True):
        covered = [i for run in rows for i in run]
        assert covered == sorted(set(covered))
        assert set(range(len(side))) - set(covered) <= {0}, "only a space that no text holds has no pair"
    return found


@pytest.mark.parametrize("ours", MADE)
@pytest.mark.parametrize("theirs", MADE)
def test_every_pair_of_families_is_aligned_to_the_byte(ours, theirs):
    found = check(MADE[ours], MADE[theirs], TEXT)
    assert len(found) > 8
    if ours == theirs:
        assert all(len(a) == len(b) == 1 for a, b in found)


@pytest.mark.parametrize("seed", range(40))
def test_any_two_byte_level_tokenizers_pair_up_to_the_byte(seed):
    dice = random.Random(seed)
    (ours, text), (theirs, _) = drawn(dice), drawn(dice)
    theirs = [*theirs, *(word[1:] for word in ours if len(word) > 2)]
    found = check(byte_level(ours), byte_level(theirs), text)
    swapped = check(byte_level(theirs), byte_level(ours), text)
    assert found == [(a, b) for b, a in swapped]


@pytest.mark.parametrize("seed", range(20))
def test_samples_that_are_no_text_lose_no_token_and_gain_no_wrong_pair(seed):
    """A student may sample any bytes: what is text pairs with the teacher's reading of it."""
    dice = random.Random(seed)
    words, text = drawn(dice)
    ids = [2 + byte for byte in text.encode()] + dice.choices(range(2, 258), k=4)
    dice.shuffle(ids)
    student, teacher = TextCodec(byte_level()), TextCodec(byte_level(words))
    aligner = TextAligner(student, teacher)
    said = aligner.reads((), ids, set())
    other, ends = aligner.teacher_ids((), said)
    assert len(said.ends) == len(ids) and len(ends) == len(other)
    for a, b in pair(said.ends, ends):
        ours, theirs = student.tokenizer.decode([ids[i] for i in a]), teacher.tokenizer.decode([other[i] for i in b])
        assert "\ufffd" in ours or "\ufffd" in theirs or ours == theirs


def test_a_character_cut_by_the_length_has_no_pair_and_the_rest_has():
    """The euro sign has three bytes; the response is cut behind the first two."""
    student = TextCodec(byte_level())
    ids = student.encode("5 €")[:-1]
    said = TextAligner(student, student).reads((), ids, set())
    assert said.text == "5 " and said.ends == [1, 2, 3, 4]
    _, ends = TextAligner(student, TextCodec(MADE["llama"])).teacher_ids((), said)
    assert len(pair(said.ends, ends)) == 2


def test_the_first_space_that_a_decoder_strips_is_no_byte():
    tokenizer = MADE["llama"]
    ids = tokenizer("mit 12", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids)[0].startswith("▁")
    assert offsets(TokenBytes(tokenizer), (), ids) == ("mit 12", [3, 4, 6])


def test_special_tokens_hold_no_byte_and_ends_are_matched_by_their_role():
    student, teacher = TextCodec(byte_level()), TextCodec(sentencepiece(("ab",)))
    aligner = TextAligner(student, teacher)
    a, b = student.encode("ab")
    said = aligner.reads((), (student.pad_id, a, student.pad_id, b, student.end_id), {student.end_id})
    assert said.closed and said.text == "ab" and said.ends == [0, 1, 1, 2]
    _, ends = aligner.teacher_ids((), said)
    assert [list(rows) for rows, _ in pair(said.ends, ends)] == [[1, 2, 3]]
    words = [len(codec.tokenizer) for codec in (student, teacher)]
    shared = aligner.shared((words[0], words[1]))
    assert shared[-1] == (student.end_id, teacher.end_id)
    tables = aligner.bytes
    assert shared[0] == (student.pad_id, teacher.pad_id)  # one name
    assert all(tables[0].of(i) == tables[1].of(k) != b"" for i, k in shared[1:-1]) and len(shared) > 256


def test_the_same_bytes_under_several_ids_are_the_one_that_is_used():
    """A line break is a letter and a byte of SentencePiece; texts are written with the letter."""
    student, teacher = TextCodec(byte_level()), TextCodec(MADE["gemma"])
    of = dict(TextAligner(student, teacher).shared((len(student.tokenizer), len(teacher.tokenizer))))
    assert teacher.tokenizer.convert_ids_to_tokens(of[student.encode("\n")[0]]) == "\n"
    assert all(of[student.encode(c)[0]] == teacher.encode(c)[0] for c in "aZ9~ \n")


def test_a_teacher_that_does_not_keep_the_text_pairs_up_to_the_first_byte_it_changes():
    aligner = TextAligner(TextCodec(byte_level()), TextCodec(lower_case()))
    assert aligner.share("ab CD ef") == pytest.approx(3 / 8)
    assert aligner.share("CD ef") == 0.0


def test_a_tokenizer_of_unknown_kind_is_read_by_decoding():
    """The same answers without a table of bytes; inside a character it has no end."""
    tokenizer = MADE["words"]
    ids = tokenizer("naïve Ä", add_special_tokens=False)["input_ids"]
    known, table = offsets(TokenBytes(tokenizer), (), ids), TokenBytes(tokenizer)
    table.known = False
    assert offsets(table, (), ids) == known
    halves = byte_level()
    table = TokenBytes(halves)
    table.known = False
    assert offsets(table, (), halves("aÄ", add_special_tokens=False)["input_ids"]) == ("aÄ", [1, None, 3])
