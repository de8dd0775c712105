"""Test how the last event stores output files: within limits, and readable for later versions."""

from pyexec.adapters.consul.kv import TRANSACTION_BYTES_MAX
from pyexec.codec import decode_event, encode_event
from pyexec.domain.events import Failed, FailureType, Killed, Output
from pyexec.domain.outcome import ERROR_CHARACTERS
from pyexec.domain.output_files import (
    PATTERNS_MAX,
    FileLimits,
    OutputFile,
    OutputFiles,
    SkippedPath,
    SkippedPattern,
    SkipReason,
)
from tests.events import START


def test_an_event_of_a_version_without_skipped_files_is_read() -> None:
    stored = (
        b'{"type": "killed.v1", "at": "2026-01-01T00:00:00.000000Z", "nonce": "n", '
        b'"files": {"listed": [{"path": "a", "size": 1}], "truncated": true, "blob": "b"}}'
    )
    event = decode_event(stored)
    assert isinstance(event, Killed)
    files = OutputFiles(listed=(OutputFile(path="a", size=1),), truncated=True, blob="b")
    assert event.files == files
    assert encode_event(event) == stored


def test_an_end_with_the_longest_lists_of_files_fits_into_one_transaction_of_consul() -> None:
    limits = FileLimits(bytes_max=0)
    reason = max(SkipReason, key=len)
    width = limits.names_bytes_max // limits.files_max // 2
    files = OutputFiles(
        listed=tuple(OutputFile(path="ü" * width, size=2**40) for _ in range(limits.files_max)),
        blob="b" * 100,
        skipped_paths=tuple(
            SkippedPath(path="ü" * (limits.skipped_bytes_max // limits.skipped_max // 2), reason=reason)
            for _ in range(limits.skipped_max)
        ),
        skipped_patterns=tuple(SkippedPattern(number=99, reason=reason) for _ in range(PATTERNS_MAX)),
        truncated=True,
        skipped_truncated=True,
    )
    output = Output(inline=bytes(64 * 1024))
    end = Failed(
        at=START,
        nonce="n" * 32,
        error_type=FailureType.OUTPUT_LIMIT,
        error="\N{MUSICAL SYMBOL G CLEF}" * ERROR_CHARACTERS,
        output=output,
        files=files,
    )
    # The values of a transaction are base64. Its other operations are small.
    assert 4 / 3 * len(encode_event(end)) < TRANSACTION_BYTES_MAX - 16 * 1024
