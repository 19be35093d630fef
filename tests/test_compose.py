"""The files of deployments agree with each other and with the code, and the tools that will read them accept them.

That they do what they say is shown by ``tests/integration/test_deploy.py``, with plain processes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from quorl.cluster.api.exits import Exit
from quorl.cluster.node.config import load
from quorl.cluster.protocol.pages import PAGES
from tests.tools import tool

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["n1", "n2", "n3"]
WORKERS = ["w1", "w2"]
UNITS = [ROOT / "deploy" / "systemd" / name for name in ("quorl.service", "quorl-worker@.service")]
READY = ["CMD", "quorl", "node", "status", "--ready", "-q"]
IN_CONTAINER = ["quorl", "node", "run", "--config", "/etc/quorl/node.toml"]


def ended_well(*command: str, folder: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


# -- docker-compose.yml --------------------------------------------------------------------------------------------
def test_d15_docker_compose_accepts_the_file(compose: dict[str, Any]) -> None:
    shown = ended_well(tool("docker-compose", "docker-compose"), "config")
    assert sorted(yaml.safe_load(shown)["services"]) == sorted(compose["services"])


def test_d15_the_file_is_valid_compose() -> None:
    """By the schema of the Compose specification, which says what ``docker compose`` accepts where no Docker is."""
    ended_well(str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")  # fmt: skip


def test_d15_three_nodes_each_with_its_own_name_volume_and_port(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert list(services) == NAMES + WORKERS
    for number, name in enumerate(NAMES, start=1):
        service = services[name]
        assert service["build"] == "."
        assert service["environment"] == {"QUORL_NODE__NAME": name}
        assert service["volumes"] == ["./deploy/compose.toml:/etc/quorl/node.toml:ro", f"{name}:/var/lib/quorl"]
        assert service["ports"] == [f"127.0.0.1:{7100 + number}:7101"]
        assert service["command"] == IN_CONTAINER
        assert service["healthcheck"]["test"] == READY
    assert sorted(compose["volumes"]) == NAMES


def test_d15_two_workers_run_the_demo_and_wait_for_the_nodes(compose: dict[str, Any]) -> None:
    for name in WORKERS:
        service = compose["services"][name]
        assert service["command"] == ["quorl", "worker", "run", "quorl.demo:app", "--log", "json", "--name", name]
        assert service["environment"]["QUORL_SERVER"] == ",".join(f"http://{node}:7101" for node in NAMES)
        assert service["depends_on"] == {node: {"condition": "service_healthy"} for node in NAMES}
        assert service["healthcheck"]["test"][1] == f"quorl worker show {name} | grep -q ALIVE"


@pytest.mark.parametrize("name", NAMES)
def test_d15_the_one_file_is_good_under_each_name(name: str, compose: dict[str, Any]) -> None:
    config = load(ROOT / "deploy" / "compose.toml", compose["services"][name]["environment"])
    assert config.node.name == name
    assert list(config.members) == NAMES
    assert config.me.http == f"{name}:{config.node.http.port}"
    assert config.me.raft == f"{name}:{config.node.raft.port}"
    assert config.node.data_dir == Path("/var/lib/quorl")


def test_d14_insecure_nodes_are_reached_from_this_machine_only(compose: dict[str, Any]) -> None:
    assert load(ROOT / "deploy" / "compose.toml", {}).auth.mode == "insecure"
    for service in compose["services"].values():
        assert service["networks"] == ["quorl"]
        assert "network_mode" not in service
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


# -- what `quorl node init` writes ---------------------------------------------------------------------------------
@pytest.mark.parametrize("members", ["127.0.0.1,127.0.0.1,127.0.0.1", "1=10.0.0.11,on=10.0.0.12,a.b=[fe80::1]"])
def test_d15_docker_compose_accepts_what_node_init_writes(tmp_path: Path, members: str) -> None:
    quorl = str(Path(sys.executable).with_name("quorl"))
    ended_well(quorl, "node", "init", "--cluster", "made", "--members", members, "--out", str(tmp_path))
    written = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    shown = yaml.safe_load(ended_well(tool("docker-compose", "docker-compose"), "config", folder=tmp_path))
    assert sorted(shown["services"]) == sorted(written["services"])
    for name, service in shown["services"].items():
        assert service["user"] == f"{tmp_path.stat().st_uid}:{tmp_path.stat().st_gid}"
        assert service["volumes"] == [f"{tmp_path}:/var/lib/quorl:rw"]
        assert service["command"] == [*IN_CONTAINER[:-1], f"/var/lib/quorl/{name}/node.toml"]
        assert service["healthcheck"]["test"] == READY
    check = str(Path(sys.executable).with_name("check-jsonschema"))
    ended_well(check, "--builtin-schema", "vendor.compose-spec", "compose.yaml", folder=tmp_path)


# -- the image -----------------------------------------------------------------------------------------------------
def test_the_image_is_built_from_what_the_wheel_needs_and_does_not_run_as_root() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    said = dict(
        re.findall(r"^\s*(ENTRYPOINT|HEALTHCHECK|CMD|USER) (.+)$", dockerfile.replace("\\\n", ""), re.MULTILINE)
    )
    assert "ENTRYPOINT" not in said  # so that a worker is started as it is anywhere else
    assert yaml.safe_load(said["CMD"]) == IN_CONTAINER
    assert yaml.safe_load(said["HEALTHCHECK"].partition("CMD")[2]) == READY[1:]
    assert dockerfile.index("USER quorl") < dockerfile.index("HEALTHCHECK")
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(let_in) == ["LICENSE", "README.md", "client", "cluster", "pyproject.toml", "src"]
    assert all((ROOT / name).exists() for name in let_in)


# -- systemd -------------------------------------------------------------------------------------------------------
def test_d15_systemd_accepts_the_units(tmp_path: Path) -> None:
    """With the programs of this environment in the place of /opt/quorl/bin, for systemd looks whether they are there."""
    verify = tool("systemd-analyze", "systemd")
    for unit in UNITS:
        text = unit.read_text().replace("/opt/quorl/bin/", f"{Path(sys.executable).parent}/")
        (tmp_path / unit.name.replace("@", "@1")).write_text(text)
    assert ended_well(verify, "verify", "--man=no", *map(str, sorted(tmp_path.iterdir())), folder=tmp_path) == ""


def test_systemd_would_notice_a_fault_in_a_unit(tmp_path: Path) -> None:
    (tmp_path / "quorl.service").write_text(UNITS[0].read_text().replace("WatchdogSec=30", "WatchdogSec=soon"))
    done = subprocess.run(
        [tool("systemd-analyze", "systemd"), "verify", "--man=no", "quorl.service"], cwd=tmp_path, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert "Failed to parse sec value" in done.stdout + done.stderr


def test_there_are_no_other_units() -> None:
    assert sorted((ROOT / "deploy" / "systemd").iterdir()) == sorted(UNITS)


def test_units_know_the_exit_codes_that_a_restart_cannot_mend() -> None:
    node, worker = (unit.read_text() for unit in UNITS)
    assert f"\nRestartPreventExitStatus={int(Exit.CONFIG)} {int(Exit.DAMAGED)}\n" in node
    assert "\nRestartPreventExitStatus=2 4\n" in worker
    assert all("\nType=notify\n" in unit.read_text() for unit in UNITS)


def test_units_are_started_again_however_often_they_end() -> None:
    """Else systemd gives up after five starts in ten seconds, and what was full or away comes back to a node that is down."""
    for unit in UNITS:
        general, _, service = unit.read_text().partition("\n[Service]\n")
        assert "\nStartLimitIntervalSec=0" in general
        assert "\nRestart=on-failure\nRestartSec=1\n" in service


def test_the_unit_in_the_documentation_is_the_one_that_is_there() -> None:
    assert (ROOT / "deploy/systemd/quorl.service").read_text() in (ROOT / "docs/operating.md").read_text()


# -- Kubernetes ----------------------------------------------------------------------------------------------------
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))


def manifest(kind: str, file: str = "quorl.yaml", **labels: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((ROOT / "deploy/kubernetes" / file).read_text())
    (found,) = (one for one in documents if one["kind"] == kind and labels.items() <= one["metadata"].items())
    return dict(found)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_d15_kubernetes_accepts_the_manifests(path: Path) -> None:
    """By the schemas of Kubernetes itself, strictly: a misspelt field is a fault."""
    program = str(Path(sys.executable).with_name("kubernetes-validate"))
    said = ended_well(program, "--strict", str(path))
    assert said.count(" passed ") == len(list(yaml.safe_load_all(path.read_text())))


def test_d15_the_nodes_of_the_stateful_set_are_those_of_its_config(tmp_path: Path) -> None:
    stateful, headless = manifest("StatefulSet"), manifest("Service", name="quorl-nodes")
    path, secret = tmp_path / "node.toml", tmp_path / "cluster.secret"
    secret.write_text("a secret")
    text = manifest("ConfigMap")["data"]["node.toml"]
    assert '"/run/secrets/quorl/cluster.secret"' in text
    path.write_text(text.replace("/run/secrets/quorl/cluster.secret", str(secret)))
    spec, (container,) = stateful["spec"], stateful["spec"]["template"]["spec"]["containers"]
    assert spec["serviceName"] == headless["metadata"]["name"]
    assert (headless["spec"]["clusterIP"], headless["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert spec["podManagementPolicy"] == "Parallel"
    for number in range(spec["replicas"]):
        name = f"{stateful['metadata']['name']}-{number}"
        config = load(path, {"QUORL_NODE__NAME": name})
        assert config.me.http == f"{name}.{spec['serviceName']}:{container['ports'][0]['containerPort']}"
        assert str(config.node.data_dir) == "/var/lib/quorl"
        assert len(config.members) == spec["replicas"]
        assert config.me.raft == f"{name}.{spec['serviceName']}:{container['ports'][1]['containerPort']}"
    assert container["command"] == IN_CONTAINER
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert {"/var/lib/quorl", "/etc/quorl", "/run/secrets/quorl"} <= mounted


def test_d15_probes_ask_what_the_node_serves_and_a_lost_quorum_restarts_nobody() -> None:
    (container,) = manifest("StatefulSet")["spec"]["template"]["spec"]["containers"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/startupz", "liveness": "/livez", "readiness": "/readyz"}
    assert set(probes.values()) <= {page.path for page in PAGES}
    assert manifest("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    labels = manifest("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for one in (manifest("PodDisruptionBudget"), manifest("StatefulSet")):
        assert one["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert manifest("Service", name="quorl")["spec"]["selector"].items() <= labels.items()
    client = manifest("NetworkPolicy")["spec"]["ingress"][1]["from"][0]["podSelector"]["matchLabels"]
    assert client.items() <= manifest("Deployment", "worker.yaml")["spec"]["template"]["metadata"]["labels"].items()
