"""Find the lines of stderr that begin or end a traceback, or tell that the next one is not the main thread's."""

import re

HEADING = b"Traceback (most recent call last):"
EVENT = re.compile(
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
      | (?P<source>
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
"""A line that begins or ends something: a traceback, the members of an exception group, an error elsewhere."""
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
"""A part of each line that matches `EVENT`. Programs may print many short lines: the search for this expression takes
a twentieth of the time, because each alternative begins with a character. A line that only looks similar should not
match: each match takes a few microseconds."""


def find_event(lines: bytes, at: int) -> re.Match[bytes] | None:
    """Find the next line that matters. `at` is the beginning of a line, and the text ends with a line feed."""
    while keyword := _KEYWORD.search(lines, at):
        start = max(at, lines.rfind(b"\n", at, keyword.start()) + 1)
        end = lines.index(b"\n", keyword.start())
        event = EVENT.match(lines, start) or EVENT.match(lines, max(start, end - len(HEADING)))
        if event:
            return event
        at = end + 1
    return None
