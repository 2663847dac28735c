"""Words are looked up once, and what is remembered of them stays small."""

from collections import Counter

from vlp.tokenizers.word_memo import LONGEST_KEPT, MEMO_SIZE, WordMemo


def test_a_word_is_split_into_tokens_once() -> None:
    asked: Counter[str] = Counter()

    def ids_of(word: str) -> list[int]:
        asked[word] += 1
        return [len(word)] * len(word)

    memo = WordMemo(str.lower, ids_of)
    rows = memo(["a bb A", "", "bb  ccc"])
    assert rows.tolist() == [[1, 2, 2, 1], [], [2, 2, 3, 3, 3]]
    assert memo(["ccc a"]).tolist() == [[3, 3, 3, 1]]
    assert asked == {"a": 1, "bb": 1, "ccc": 1, "": 1}


def test_neither_many_words_nor_long_ones_fill_the_memory() -> None:
    memo = WordMemo(str, lambda word: (0,))
    memo(["x" * (LONGEST_KEPT + 1)])
    assert memo.recent.cache_info().currsize == 0
    memo([str(number) for number in range(MEMO_SIZE + 1000)])
    assert memo.recent.cache_info().currsize == MEMO_SIZE
