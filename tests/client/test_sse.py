import pytest
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
def test_messages_survive_any_cut_into_chunks(sent, end, data):
    whole = written(sent, end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    parser, got = Parser(), []
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        got += parser.feed(whole[start:stop])
    assert got == sent


@given(messages.filter(bool), st.integers(1))
def test_what_is_not_finished_is_not_a_message(sent, missing):
    whole = written(sent, "\n")
    cut = len(whole) - 1 - missing % (len(whole) - 1)
    assert Parser().feed(whole[:cut]) == sent[: len(Parser().feed(whole[:cut]))]
    assert len(Parser().feed(whole[:cut])) < len(sent)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"data: a\n\n", [Message("message", "a", "")]),
        (b"\xef\xbb\xbfdata:a\n\n", [Message("message", "a", "")]),
        (b"data:  a\n\n", [Message("message", " a", "")]),
        (b"data\n\n", [Message("message", "", "")]),
        (b": keep-alive\n\n", []),
        (b"event: x\n\ndata: a\n\n", [Message("message", "a", "")]),
        (b"id: 3\ndata: a\n\ndata: b\n\n", [Message("message", "a", "3"), Message("message", "b", "3")]),
        (b"id: 3\ndata: a\n\nid\ndata: b\n\n", [Message("message", "a", "3"), Message("message", "b", "")]),
        (b"retry: 5\nfuture: x\ndata: \xff\n\n", [Message("message", "\ufffd", "")]),
    ],
)
def test_grammar(sent, expected):
    assert Parser().feed(sent) == expected


def test_an_id_without_data_counts_for_resuming():
    parser = Parser()
    assert parser.feed(b"id: 7.0\n: nothing else\n\n") == []
    assert parser.last_id == "7.0"
