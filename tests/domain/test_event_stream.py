from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pyexec.domain.event_stream import EndItem, Item, LifecycleItem, OutputItem, Position, items_after
from pyexec.domain.events import Event
from pyexec.domain.output_log import OutputLog, Stream
from tests.events import claimed, failed, finished, preparing, released, running, submitted

WORDS: Sequence[Sequence[Event]] = [
    [submitted(), claimed(), preparing(), running(), finished()],
    [submitted(), claimed(), preparing(), released(), claimed(), preparing(), running(), finished()],
    [submitted(), claimed(), running(), finished()],
    [submitted(), claimed(), preparing(), failed()],
]
texts = st.lists(st.binary(min_size=1, max_size=6), max_size=4)


def story(word: Sequence[Event], setup: list[bytes], program: list[bytes]) -> OutputLog:
    output_log = OutputLog()
    for data in setup:
        output_log.append(Stream.SETUP, data)
    for number, data in enumerate(program):
        output_log.append(Stream.STDERR if number % 2 else Stream.STDOUT, data)
    return output_log


def told(items: Sequence[Item]) -> tuple[list[str], bytes, bytes]:
    """Return the kinds of the events in order, the output of the setup and the output of the program."""
    events = [type(item.event).__name__ for item in items if not isinstance(item, OutputItem)]
    chunks = [item for item in items if isinstance(item, OutputItem)]
    said = b"".join(chunk.data for chunk in chunks if chunk.stream is Stream.SETUP)
    return events, said, b"".join(chunk.data for chunk in chunks if chunk.stream is not Stream.SETUP)


def all_of(word: Sequence[Event], output_log: OutputLog, after: Position) -> list[Item]:
    return list(items_after("e", word, output_log, after))


@given(st.sampled_from(WORDS[:3]), texts, texts)
def test_setup_comes_before_running_and_output_after_it(
    word: Sequence[Event], setup: list[bytes], program: list[bytes]
) -> None:
    items = all_of(word, story(word, setup, program), Position())
    kinds = [type(item.event).__name__ if not isinstance(item, OutputItem) else item.stream for item in items]
    start = kinds.index("Running")
    assert not {Stream.STDOUT, Stream.STDERR} & set(kinds[:start])
    assert Stream.SETUP not in kinds[start:]
    assert isinstance(items[-1], EndItem)
    assert told(items) == ([type(event).__name__ for event in word], b"".join(setup), b"".join(program))


@given(st.sampled_from(WORDS), texts, texts, st.data())
def test_a_resumed_reader_misses_and_repeats_nothing(
    word: Sequence[Event], setup: list[bytes], program: list[bytes], data: st.DataObject
) -> None:
    output_log = story(word, setup, program if word is not WORDS[3] else [])
    whole = all_of(word, output_log, Position())
    cut = data.draw(st.integers(0, len(whole)))
    position = whole[cut - 1].position if cut else Position()
    parts = told(whole[:cut]), told(all_of(word, output_log, position))
    joined = tuple(before + after for before, after in zip(*parts, strict=True))
    assert joined == told(whole)


@given(st.sampled_from(WORDS[:3]), texts, texts, st.data())
def test_a_reader_resumes_after_an_adoption(
    word: Sequence[Event], setup: list[bytes], program: list[bytes], data: st.DataObject
) -> None:
    """The adopting replica reads the program's output again, and does not know the output of the setup."""
    whole = all_of(word, story(word, setup, program), Position())
    start = next(n for n, i in enumerate(whole) if isinstance(i, LifecycleItem) and i.event is word[-2])
    cut = data.draw(st.integers(start + 1, len(whole)))
    rest = all_of(word, story(word, [], program), whole[cut - 1].position)
    assert told(rest) == told(whole[cut:])


@given(texts)
def test_output_of_a_failed_setup_becomes_stderr_at_the_same_positions(setup: list[bytes]) -> None:
    word = WORDS[3]
    output_log = story(word, setup, [])
    live = all_of(word[:3], output_log, Position())
    output_log.relabel_setup()
    ended = all_of(word, output_log, Position())
    assert [item.position for item in ended[:-1]] == [item.position for item in live]
    assert isinstance(ended[-1], EndItem)
    assert ended[-1].output_log.bytes_of(Stream.STDERR) == b"".join(setup)
    assert all_of(word, output_log, live[-1].position) == ended[-1:]
