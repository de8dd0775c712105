"""Programs that observe their interpreter, by the name of what they observe."""

from tests.sandbox.corpus.case import Case
from tests.sandbox.corpus.ends import ENDS
from tests.sandbox.corpus.imports import IMPORTS
from tests.sandbox.corpus.parameters import PARAMETERS
from tests.sandbox.corpus.processes import PROCESSES
from tests.sandbox.corpus.state import STATE
from tests.sandbox.corpus.text import TEXT

CORPUS: dict[str, Case] = {**STATE, **TEXT, **ENDS, **IMPORTS, **PROCESSES, **PARAMETERS}
