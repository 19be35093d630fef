"""``quorl node init``: what it writes is what a node starts from."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from quorl.client.cli.init import UNIT
from quorl.cluster.node.config import load, read_secret
from tests.client.commands import Quorl

UNIT_FILE = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "quorl.service"


def test_d15_three_machines(quorl: Quorl, tmp_path: Path) -> None:
    out = tmp_path / "conf"
    done = quorl(
        "node", "init", "--cluster", "prod-eu", "--members", "10.0.0.11,10.0.0.12,10.0.0.13", "--out", str(out)
    )
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == str(out / "n1" / "node.toml")
    assert f"scp -r {out}/n2/. 10.0.0.12:/etc/quorl/" in done.stderr
    assert 'mode = "insecure"' in done.stderr
    configs = [load(out / name / "node.toml", {}) for name in ("n1", "n2", "n3")]
    assert [one.node.http for one in configs] == ["10.0.0.11:7101", "10.0.0.12:7101", "10.0.0.13:7101"]
    assert {one.cluster.members for one in configs} == {configs[0].cluster.members}
    assert {one.cluster.name for one in configs} == {"prod-eu"}
    assert {str(one.node.data_dir) for one in configs} == {"/var/lib/quorl"}
    found = {read_secret(one) for one in configs}
    assert len(found) == 1
    assert len(found.pop() or b"") == 64
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in out.rglob("*") if path.is_file())
    for name in ("n1", "n2", "n3"):
        assert quorl("node", "check", "-c", str(out / name / "node.toml")).exit_code == 0


def test_d15_containers_use_their_machines_network_and_the_files_as_they_are(quorl: Quorl, tmp_path: Path) -> None:
    out = tmp_path / "conf"
    done = quorl("node", "init", "--cluster", "prod-eu", "--members", "10.0.0.11,10.0.0.12,on=[::1]", "--out", str(out))
    assert "in it: docker compose up -d n1" in done.stderr
    written = (out / "compose.yaml").read_text()
    assert "docker compose up -d n1     on the machine of n1" in written
    services = yaml.safe_load(written)["services"]
    assert list(services) == ["n1", "n2", "on"]  # YAML would take a bare `on` for true
    for name, service in services.items():
        config = load(out / name / "node.toml", service["environment"])
        assert service["command"][-1] == f"/var/lib/quorl/{name}/node.toml"
        assert str(config.node.data_dir) == f"/var/lib/quorl/data/{name}"
        assert service["environment"]["QUORL_SERVER"] == f"http://{config.me.http}"
        assert (service["network_mode"], service["volumes"]) == ("host", [".:/var/lib/quorl"])
        owner = (out / name / "cluster.secret").stat()
        assert service["user"] == f"${{QUORL_USER:-{owner.st_uid}:{owner.st_gid}}}"


def test_the_unit_is_the_one_that_is_tried() -> None:
    tried = UNIT_FILE.read_text("utf-8")
    assert UNIT.format(node="/opt/quorl/bin/quorl-node") == tried[tried.index("[Unit]") :]


def test_members_that_share_a_machine_are_told_of(quorl: Quorl, tmp_path: Path) -> None:
    done = quorl(
        "node", "init", "--cluster", "c", "--members", "10.0.0.1,10.0.0.1,10.0.0.2", "--out", str(tmp_path / "c")
    )
    assert done.exit_code == 0
    assert "! n1 and n2 are on one machine, 10.0.0.1: its loss takes them all." in done.stderr
    done = quorl(
        "node", "init", "--cluster", "c", "--members", "10.0.0.1,10.0.0.2,10.0.0.3", "--out", str(tmp_path / "d")
    )
    assert "on one machine" not in done.stderr


def test_one_machine_to_try_things_on(quorl: Quorl, tmp_path: Path) -> None:
    out = tmp_path / "c"
    words = ("node", "init", "--cluster", "dev", "--members", "a=127.0.0.1,b=127.0.0.1", "--out", str(out))
    done = quorl(*words)
    assert f"quorl node run -c {out}/b/node.toml" in done.stderr
    assert "! 2 members survive the loss of no more nodes than 1 do" in done.stderr
    first, second = (load(out / name / "node.toml", {}) for name in "ab")
    assert (first.node.http, second.node.http) == ("127.0.0.1:7101", "127.0.0.1:7102")
    assert first.node.data_dir != second.node.data_dir
    assert first.auth.mode == "none"
    assert f"docker compose -f {out}/compose.yaml up -d" in done.stderr
    again = quorl(*words)
    assert again.exit_code == 4
    assert "nothing is overwritten" in again.stderr
    told = quorl(*words[:-1], str(tmp_path / "d"), "--json")
    assert len(json.loads(told.stdout)["files"]) == 5


def test_a_second_cluster_in_the_folder_of_the_first_leaves_nothing_behind(quorl: Quorl, tmp_path: Path) -> None:
    out = tmp_path / "c"
    words = ("node", "init", "--cluster", "dev", "--out", str(out), "--members")
    assert quorl(*words, "n2=10.0.0.1").exit_code == 0
    before = sorted(out.rglob("*"))
    again = quorl(*words, "n1=10.0.0.1")
    assert (again.exit_code, sorted(out.rglob("*"))) == (4, before)
    assert f"{out}/quorl.service exists" in again.stderr


@pytest.mark.parametrize("members", ["", "10.0.0.1:7101", "a b=10.0.0.1", "a=10.0.0.1,a=10.0.0.2", "10.0.0.1;rm"])
def test_what_is_no_member(quorl: Quorl, tmp_path: Path, members: str) -> None:
    out = tmp_path / "x"
    assert quorl("node", "init", "--cluster", "dev", "--members", members, "--out", str(out)).exit_code == 2
    assert quorl("node", "init", "--cluster", "no name", "--members", "a", "--out", str(out)).exit_code == 2
    assert not out.exists()


def test_what_cannot_be_written(quorl: Quorl, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = quorl("node", "init", "--cluster", "dev", "--members", "10.0.0.1", "--out", str(tmp_path / "file" / "x"))
    assert refused.exit_code == 1
    assert "cannot be written" in refused.stderr
