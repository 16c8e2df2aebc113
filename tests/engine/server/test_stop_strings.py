"""Stop strings are found across any cut of the text, and nothing of them is shown."""

from hypothesis import given
from hypothesis import strategies as st

from pagoda_engine.server.stop_strings import StopStrings


def feed(stops, pieces, include=False):
    matcher = StopStrings(stops, include=include)
    shown = []
    for piece in pieces:
        text, stop = matcher.push(piece)
        shown.append(text)
        if stop is not None:
            return "".join(shown), stop
    return "".join(shown) + matcher.flush(), None


def oracle(stops, text, include):
    """Character by character: the first moment at which the text so far ends with a stop string."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return (text[:end] if include else text[: end - len(stop)]), stop
    return text, None


@given(
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=4),
    pieces=st.lists(st.text("abc", max_size=5), max_size=8),
    include=st.booleans(),
)
def test_any_cut_gives_what_reading_by_character_gives(stops, pieces, include):
    assert feed(stops, pieces, include) == oracle(stops, "".join(pieces), include)


@given(stops=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4), text=st.text("abc", max_size=20))
def test_no_part_of_a_stop_string_is_ever_shown_early(stops, text):
    """What was shown before the match is a beginning of the final text."""
    matcher, final = StopStrings(stops), oracle(stops, text, include=False)[0]
    shown = ""
    for character in text:
        piece, stop = matcher.push(character)
        shown += piece
        assert final.startswith(shown)
        if stop is not None:
            return


def test_a_stop_string_split_over_pieces_ends_the_text_before_it():
    assert feed(["\n\nUser:"], ["Hi.\n", "\nUs", "er: more"]) == ("Hi.", "\n\nUser:")


def test_text_that_only_looked_like_a_stop_string_is_shown_in_the_end():
    assert feed(["END"], ["THE EN", "TRY"]) == ("THE ENTRY", None)
    assert feed(["END"], ["THE EN"]) == ("THE EN", None)


def test_without_stop_strings_nothing_is_held_back():
    assert StopStrings([]).push("text") == ("text", None)
