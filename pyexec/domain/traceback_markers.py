"""Find the marker lines of stderr: those that begin or end a traceback, or say that the next one belongs to a thread, a
finalizer or the like."""

import re

HEADING = b"Traceback (most recent call last):"
MARKER = re.compile(
    rb"""
    ^(?:
        (?P<heading>Traceback[ ]\(most[ ]recent[ ]call[ ]last\):)
      | (?P<group>[ ][ ]\+[ ]Exception[ ]Group[ ]Traceback[ ]\(most[ ]recent[ ]call[ ]last\):)
      | (?P<bare>[ ][ ]\|[ ](?P<bare_name>[^\s:]+):[ ](?P<bare_message>[^\n]*\([0-9]+[ ]sub-exceptions?\)))
      | (?P<members>[ ][ ]\+-\+-+[ ]1[ ]-+)
      | (?P<syntax>[ ][ ]File[ ]"[^\n]+",[ ]line[ ][0-9]{1,9})
      | (?P<other>
            Exception[ ]ignored[ ](?:in|on|while)\b[^\n]*
          | Exception[ ]in[ ](?:thread|callback|threading\.excepthook|default[ ]exception[ ]handler)\b[^\n]*
          | Unhandled[ ]exception[ ]in[ ]thread\b[^\n]*
          | Error[ ]in[ ](?:atexit\._run_exitfuncs|sys\.excepthook):
          | Task[ ]exception[ ]was[ ]never[ ]retrieved
          | Process[ ][\w.-]*Process-[0-9:]+:
          | ---[ ]Logging[ ]error[ ]---
          | Fatal[ ]Python[ ]error:[^\n]*
        )
      | (?P<uncompiled>
            SyntaxError:[ ](?:encoding[ ]problem:|Non-UTF-8[ ]code[ ]starting[ ]with)[ ][^\n]*
          | RecursionError:[ ]maximum[ ]recursion[ ]depth[ ]exceeded[ ]during[ ](?:compilation|ast[ ]construction)
          | MemoryError(?::[ ]Parser[ ]stack[ ]overflowed[^\n]*)?
          | (?:Syntax|Value)Error:[ ]source[ ]code[ ](?:string[ ])?cannot[ ]contain[ ]null[ ]bytes
        )
      | (?P<warning>[^ \n][^\n]*?:[0-9]+:[ ]\w*Warning:[^\n]*)
      | (?P<original>Original[ ]exception[ ]was:)
      | (?P<chain>
            During[ ]handling[ ]of[ ]the[ ]above[ ]exception,[ ]another[ ]exception[ ]occurred:
          | The[ ]above[ ]exception[ ]was[ ]the[ ]direct[ ]cause[ ]of[ ]the[ ]following[ ]exception:
        )
    )$
    | (?P<inline>(?<=[^\n])Traceback[ ]\(most[ ]recent[ ]call[ ]last\):)$
    """,
    re.MULTILINE | re.VERBOSE,
)
"""A marker line: the name of the group says what it begins or ends. `inline` is a heading after an unfinished line."""
_KEYWORD = re.compile(
    rb"""
      T(?:raceback[ ]\(most[ ]recent[ ]call[ ]last\):$
        | ask[ ]exception[ ]was[ ]never[ ]retrieved$
        | he[ ]above[ ]exception[ ]was[ ]the[ ]direct[ ]cause)
    | [ ][ ](?:\+-(?<![^\n][ ][ ]\+-)\+-+[ ]1[ ]-+$
        | File[ ]"(?<![^\n][ ][ ]File[ ]")[^\n]+",[ ]line[ ][0-9]{1,9}$)
    | \([0-9]+[ ]sub-exceptions?\)$
    | E(?:xception[ ]i(?:gnored[ ]|n[ ][tcd])|rror(?:[ ]in[ ][as]|:[ ]source[ ]code[ ]))
    | Unhandled[ ]exception[ ]in[ ]thread | Process[ ][\w.-]*Process-[0-9:]+:$
    | ---[ ]Logging[ ]error[ ]---$ | Fatal[ ]Python[ ]error: | SyntaxError:[ ][eN]
    | MemoryError(?:$|:[ ]Parser) | RecursionError:[ ]maximum[ ]recursion[ ]depth[ ]exceeded[ ]during[ ]
    | :[0-9]+:[ ]\w*Warning:
    | Original[ ]exception[ ]was:$ | During[ ]handling[ ]of[ ]the[ ]above
    """,
    re.MULTILINE | re.VERBOSE,
)
"""Matches a part of each line that matches `MARKER`, and few other lines: each match takes a few microseconds.

The search for it takes a twentieth of the time, because each alternative begins with literal characters. So a check for
the beginning of the line follows them, as a lookbehind."""


def find_marker(lines: bytes, at: int) -> re.Match[bytes] | None:
    """Find the next marker line; None if there is none.

    `at` is the beginning of a line, and `lines` ends with a line feed."""
    while keyword := _KEYWORD.search(lines, at):
        start = max(at, lines.rfind(b"\n", at, keyword.start()) + 1)
        end = lines.index(b"\n", keyword.start())
        marker = MARKER.match(lines, start) or MARKER.match(lines, max(start, end - len(HEADING)))
        if marker:
            return marker
        at = end + 1
    return None
