"""Test that figures of matplotlib, and objects of IPython, are shown as a notebook shows them."""

import base64
import hashlib
import json
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.cases import sampled
from tests.support.sessions import opened

REQUIREMENTS = "matplotlib\nipython\n"


async def test_a_session_installs_ipython_and_shows_figures(api: Api) -> None:
    """The server adds IPython to the requirements, and the tests below use this environment."""
    async with opened(api, requirements_txt="matplotlib") as session:
        result = await session.result("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()")
    assert len(digests(result)) == 1
    assert (await result_of(api, "import IPython"))["timings_ms"]["setup"] == 0


async def result_of(api: Api, code: str, **options: Any) -> Any:
    body = {"code": code, "requirements_txt": REQUIREMENTS, **options}
    document = (await api.eval(body)).document
    assert (document["status"], document["exit_code"], document["stderr"]) == ("completed", 0, ""), document
    return document


def digests(document: Any) -> list[str]:
    """Return the SHA-256 of each PNG that was shown."""
    pngs = [base64.b64decode(each["data"]["image/png"]) for each in document["displays"]]
    assert all(png.startswith(b"\x89PNG") for png in pngs)
    return [hashlib.sha256(png).hexdigest() for png in pngs]


FIGURES = """
import hashlib, json, sys
{select}
import matplotlib.pyplot as plt
saved = []
def plot(*values):
    plt.plot(values)
    plt.savefig("plot.png")
    saved.append(hashlib.sha256(open("plot.png", "rb").read()).hexdigest())
{use}
print(json.dumps(saved))
"""


@sampled(
    ("select", "use", "shown"),
    [
        ("", "plot(1, 2); plt.show(); plot(2, 1); plt.show()", [0, 1]),
        ("", "plot(1, 2); plt.figure(); plot(2, 1)", [0, 1]),
        ("", "plot(1, 2); plt.show(); plt.show(); plt.close('all'); plt.close('all')", [0]),
        ("", "plot(1, 2); plt.close(); plot(2, 1); plt.close(); plt.close()", []),
        ("", "plot(1, 2); fig = plt.gcf(); display(fig); plt.show()", [0]),
        ("", "plot(1, 2); fig = plt.gcf(); plt.close(fig); display(fig); display(fig)", [0, 0]),
        ("", "plot(1, 2); plt.gcf().show()", [0]),
        ("import matplotlib; matplotlib.use('Agg')", "plot(1, 2)", [0]),
        ("import atexit; atexit.register(lambda: plt.figure())", "plot(1, 2); plt.show()", [0]),
        ("sys.stdout.flush()", "import os\nplot(1, 2)\nif not os.fork(): plt.show(); os._exit(0)\nos.wait()", [0]),
    ],
    every=4,
)  # fmt: skip
async def test_each_figure_is_shown_once_as_it_would_be_saved(
    api: Api, select: str, use: str, shown: list[int]
) -> None:
    document = await result_of(api, FIGURES.format(select=select, use=use))
    saved = json.loads(document["stdout"])
    assert digests(document) == [saved[number] for number in shown]


async def test_a_figure_is_shown_after_an_exception_and_for_an_execution(api: Api) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1])\n1 / 0"
    document = (await api.eval({"code": code, "requirements_txt": REQUIREMENTS})).document
    assert (document["error_type"], len(digests(document))) == ("ZeroDivisionError", 1)
    result = await api.run(code, requirements_txt=REQUIREMENTS, capture_displays=True)
    assert (result["error_type"], len(digests(result))) == ("ZeroDivisionError", 1)


async def test_a_figure_as_last_expression_is_shown_once(api: Api) -> None:
    code = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nfig"
    document = await result_of(api, code, eval_last_expr=True)
    assert document["displays"][0]["data"]["text/plain"] == "<Figure size 640x480 with 1 Axes>"
    assert len(digests(document)) == 1


@pytest.mark.full
async def test_a_backend_of_the_caller_is_used_and_children_have_their_own(api: Api) -> None:
    code = """
import os, subprocess, sys
import matplotlib.pyplot as plt
print(plt.get_backend().lower(), os.environ.get("MPLBACKEND"), flush=True)
subprocess.run([sys.executable, "-c", "import matplotlib.pyplot as p; p.plot([1]); print(p.get_backend().lower())"])
"""
    document = await result_of(api, code, env_vars=["MPLBACKEND=svg"])
    assert document["stdout"] == "svg svg\nsvg\n"
    document = await result_of(api, code)
    assert document["stdout"] == "module://pyexec_figures None\nagg\n"


@pytest.mark.full
async def test_figures_of_plotly_are_shown(api: Api) -> None:
    code = """
import plotly.graph_objects as graphs, plotly.io
graphs.Figure(graphs.Scatter(y=[1, 2])).show()
display(graphs.Figure(graphs.Scatter(y=[3, 4])))
plotly.io.show({"data": [{"type": "scatter", "y": [5, 6], "unknown": 1}]}, validate=False)
graphs.Figure(graphs.Scatter(y=[7, 8]))
"""
    document = await result_of(api, code, eval_last_expr=True, requirements_txt="plotly")
    assert document["stdout"] == ""
    shown = [each["data"] for each in document["displays"]]
    assert [sorted(data) for data in shown] == [["text/html", "text/plain"]] * 4
    for data, values in zip(shown, ("[1,2]", "[3,4]", "[5,6]", "[7,8]"), strict=True):
        assert f'"y":{values}' in data["text/html"]
    code = "import plotly.io; print(plotly.io.renderers.default)"
    document = await result_of(api, code, env_vars=["PLOTLY_RENDERER=browser"], requirements_txt="plotly")
    assert document["stdout"] == "browser\n"


async def test_objects_of_ipython_are_shown(api: Api) -> None:
    code = """
import IPython
from IPython.display import HTML, Image, clear_output, display, publish_display_data
display(HTML("<b>bold</b>"), Image(data=b"\\x89PNG\\r\\n\\x1a\\n", format="png"))
publish_display_data({"text/plain": "published"})
clear_output()
handle = display(1, display_id=True)
handle.update(2)
HTML("<table>")
"""
    document = await result_of(api, code, eval_last_expr=True)
    shown = [each["data"] for each in document["displays"]]
    assert (document["stdout"], len(shown)) == ("", 6)
    assert shown[0] == {"text/plain": "<IPython.core.display.HTML object>", "text/html": "<b>bold</b>"}
    assert base64.b64decode(shown[1]["image/png"]) == b"\x89PNG\r\n\x1a\n"
    assert [each["text/plain"] for each in shown[2:5]] == ["published", "1", "2"]
    assert shown[5]["text/html"] == "<table>"
