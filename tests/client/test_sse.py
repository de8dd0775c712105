"""Test properties of the parser that tests/wire/sse.json does not cover."""

from hypothesis import given
from hypothesis import strategies as st

from pyexec_client.sse import Message, Parser

texts = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
messages = st.lists(
    st.builds(
        Message,
        event=texts.filter(lambda t: t != ""),
        data=st.lists(texts, min_size=1).map("\n".join),
        id=texts,
    )
)


def written(sent: list[Message], end: str) -> bytes:
    lines = []
    for message in sent:
        lines += [f"id: {message.id}", f"event: {message.event}", ": keep-alive"]
        lines += [f"data: {line}" for line in message.data.split("\n")]
        lines.append("")
    return "".join(line + end for line in lines).encode()


@given(messages, st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_messages_do_not_depend_on_chunk_boundaries(sent, end, data):
    whole = written(sent, end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    parser, got = Parser(), []
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        got += parser.feed(whole[start:stop])
    assert got == sent


@given(messages.filter(bool), st.integers(1))
def test_an_incomplete_message_is_discarded(sent, missing):
    whole = written(sent, "\n")
    cut = len(whole) - 1 - missing % (len(whole) - 1)
    assert Parser().feed(whole[:cut]) == sent[: len(Parser().feed(whole[:cut]))]
    assert len(Parser().feed(whole[:cut])) < len(sent)


def test_invalid_utf8_is_replaced():
    assert Parser().feed(b"data: \xff\n\n") == [Message("message", "\ufffd", "")]


def test_an_id_without_data_is_remembered():
    parser = Parser()
    assert parser.feed(b"id: 7.0\n: nothing else\n\n") == []
    assert parser.last_id == "7.0"
