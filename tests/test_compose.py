"""The containers: docker-compose.yml, deploy/compose.toml and the Dockerfile agree with each other and with the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from quorl.cluster.node.config import load

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["n1", "n2", "n3"]


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_d15_three_nodes_each_with_its_own_name_volume_and_port(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert list(services) == NAMES
    for number, (name, service) in enumerate(services.items(), start=1):
        assert service["build"] == "."
        assert service["environment"] == {"QUORL_NODE__NAME": name}
        assert service["volumes"] == ["./deploy/compose.toml:/etc/quorl/node.toml:ro", f"{name}:/var/lib/quorl"]
        assert service["ports"] == [f"127.0.0.1:{7100 + number}:7101"]
    assert sorted(compose["volumes"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_d15_the_one_file_is_good_under_each_name(name: str, compose: dict[str, Any]) -> None:
    config = load(ROOT / "deploy" / "compose.toml", compose["services"][name]["environment"])
    assert config.node.name == name
    assert list(config.members) == list(compose["services"])
    assert config.me.http == f"{name}:{config.node.http.port}"
    assert config.me.raft == f"{name}:{config.node.raft.port}"
    assert config.node.data_dir == Path("/var/lib/quorl")


def test_d14_insecure_nodes_are_reached_from_this_machine_only(compose: dict[str, Any]) -> None:
    assert load(ROOT / "deploy" / "compose.toml", {}).auth.mode == "insecure"
    for service in compose["services"].values():
        assert service["networks"] == ["quorl"]
        assert "network_mode" not in service
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")


def test_the_image_is_built_from_what_the_wheel_needs_and_does_not_run_as_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "quorl-node = " in (ROOT / "pyproject.toml").read_text()
    assert 'ENTRYPOINT ["quorl-node"]' in dockerfile
    assert 'CMD ["--config", "/etc/quorl/node.toml"]' in dockerfile
    assert dockerfile.index("USER quorl") < dockerfile.index("ENTRYPOINT")
    assert re.search(r"HEALTHCHECK.*\n.*http://127\.0\.0\.1:7101/readyz", dockerfile)
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(let_in) == ["LICENSE", "README.md", "client", "cluster", "pyproject.toml", "src"]
    assert all((ROOT / name).exists() for name in let_in)
