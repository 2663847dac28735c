"""The picture of captions shows kept words dark and hidden ones pale."""

import numpy as np

from vlp.pictures.captions import kept_words


def test_words_are_as_dark_as_they_are_often_kept() -> None:
    shares = (1.0, 0.5, 0.0)
    darkest = [np.asarray(kept_words({"": [("word", share)]}).convert("L")).min() for share in shares]
    assert darkest == sorted(darkest)
    assert darkest[0] < 40
    assert darkest[-1] > 200


def test_there_is_a_line_for_each_mask() -> None:
    one, three = (kept_words({str(i): [("word", 1.0)] for i in range(count)}) for count in (1, 3))
    assert one.width == three.width
    assert one.height < three.height
