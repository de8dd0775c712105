import pytest

from pyexec_client.options import metadata


def test_every_option_has_its_field():
    options = {
        "entrypoint": "a.py",
        "image": "python:3.12-slim",
        "requirements": "numpy",
        "pre_commands": ("apt-get update",),
        "stdin": "in",
        "env": {"A": "x=y", "B": ""},
        "args": ("-x",),
        "output_files": ["*.csv"],
        "timeout": 1.5,
        "memory_mb": 64,
        "disk_mb": 65,
        "cpu_shares": 512,
        "cpus": 0.5,
        "network": True,
    }
    assert metadata(options) == {
        "entrypoint": "a.py",
        "docker_image": "python:3.12-slim",
        "requirements_txt": "numpy",
        "pre_commands": ["apt-get update"],
        "stdin": "in",
        "env_vars": ["A=x=y", "B="],
        "script_args": ["-x"],
        "output_files": ["*.csv"],
        "config": {
            "timeout_seconds": 1.5,
            "memory_mb": 64,
            "disk_mb": 65,
            "cpu_shares": 512,
            "cpus": 0.5,
            "network_disabled": False,
        },
    }


@pytest.mark.parametrize("options", [{}, {"timeout": None, "env": None, "network": None}])
def test_what_is_not_given_is_the_servers_to_decide(options):
    assert metadata(options) == {}


def test_what_is_falsy_is_given():
    assert metadata({"stdin": "", "network": False}) == {"stdin": "", "config": {"network_disabled": True}}


def test_an_unknown_option_is_named_with_those_there_are():
    with pytest.raises(TypeError, match=r"'memory'; there are .*memory_mb"):
        metadata({"memory": 5})
