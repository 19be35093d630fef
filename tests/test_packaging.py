"""What is installed: one top-level name, every module, and a client that costs little to import."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quorl import __version__ as quorl_version
from tests.harness import call, die_with_parent, until, write_configs

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("LICENSE", "README.md", "pyproject.toml", "client", "cluster", "src")


def modules() -> set[str]:
    """Every file that belongs into the wheel, as it is named there."""
    own = (
        "__init__.py",
        "channel.py",
        "demo.py",
        "lean.py",
        "logs.py",
        "py.typed",
        "sessions.py",
        "shielding.py",
        "soonest.py",
        "systemd.py",
        "vanished.py",
    )
    found = {f"quorl/{name}" for name in own}
    for room in ("client", "cluster"):
        found |= {f"quorl/{path.relative_to(ROOT)}" for path in (ROOT / room).rglob("*.py")}
    dashboard = ROOT / "cluster" / "dashboard"
    return found | {f"quorl/{path.relative_to(ROOT)}" for path in dashboard.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, through a source distribution as `python -m build` does it, without a network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SHIPPED:
        subprocess.run(["cp", "-a", str(ROOT / name), str(source)], check=True)
    for leftover in source.rglob("*.egg-info"):
        subprocess.run(["rm", "-r", str(leftover)], check=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(wheel: Path) -> Path:
    """The source distribution that the wheel was built from."""
    (path,) = wheel.parent.glob("*.tar.gz")
    return path


@pytest.mark.slow
def test_the_wheel_holds_every_module_under_one_name(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"quorl"}
    assert names >= modules()
    assert {name for name in names if name.endswith(".py")} == {name for name in modules() if name.endswith(".py")}


@pytest.mark.slow
def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
        points = archive.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert "\nName: quorl\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text
    assert "\nRequires-Dist: pysyncobj==0.3.17\n" in text
    assert "quorl-node = quorl.cluster.main:main" in points
    assert "quorl = quorl.client.cli:main" in points


@pytest.mark.slow
def test_the_installed_package_is_quorl_and_nothing_else(wheel: Path, tmp_path: Path) -> None:
    """Beside a user's own ``client.py`` too, and with nothing named client, cluster or node of ours elsewhere."""
    venv.create(tmp_path / "env", with_pip=False, system_site_packages=False)
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # What quorl depends on is taken from this environment; the checkout's own entry is not.
    there = Path(pytest.__file__).parents[1]
    (tmp_path / "client.py").write_text("mine = True\n")
    program = (
        f"import sys; sys.path.append({str(there)!r})\n"
        "import client, importlib.util, quorl\n"
        "assert client.mine\n"
        f"assert quorl.__file__.startswith({str(site)!r}), quorl.__file__\n"
        "import quorl.client, quorl.cluster.main\n"
        "assert not importlib.util.find_spec('cluster')\n"
        "assert not importlib.util.find_spec('node')\n"
    )
    run(program, tmp_path / "env" / "bin" / "python", tmp_path, strangers())


def strangers() -> dict[str, str]:
    """The environment of somebody who never saw a checkout: no path leads into this one."""
    return {name: text for name, text in os.environ.items() if not name.startswith(("QUORL_", "PYTHON"))}


@contextmanager
def node_running(config: Path, programs: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A node as its package starts it, in a directory that has nothing to do with this repository."""
    with (config.parent / "node.log").open("wb") as log:
        node = subprocess.Popen(
            [str(programs / "quorl-node"), "--config", config.name],
            cwd=config.parent,
            env=environment,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - as the harness starts its nodes
        )
    try:
        yield node
    finally:
        node.kill()
        node.wait()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_what_is_installed_runs_outside_the_repository(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A node, a worker and the command line, as somebody has them who never saw a checkout."""
    package: Path = request.getfixturevalue(kind)
    environment = strangers()
    venv.create(tmp_path / "env", with_pip=False)
    programs = tmp_path / "env" / "bin"
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    # The packages that quorl depends on come from this environment; a path in a .pth file does not bring its editable checkouts.
    (site / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]) + "\n")
    pip = [
        str(programs / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
    ]
    done = subprocess.run(
        [*pip, "--force-reinstall", "--prefix", str(tmp_path / "env"), str(package)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (config,) = write_configs(tmp_path / "node", size=1)
    url = "http://" + tomllib.loads(config.read_text())["node"]["http"]
    environment |= {"QUORL_SERVER": url}

    def quorl(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(programs / "quorl"), *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    where = subprocess.run(
        [str(programs / "python"), "-c", "import quorl; print(quorl.__file__)"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
    assert quorl("node", "check", "-c", str(config)).returncode == 0
    with node_running(config, programs, environment) as node:
        until(lambda: quorl("node", "status", "--ready", "-q").returncode == 0, "the node to be ready")
        assert quorl("task", "submit", "demo.add", "4", "5", "--id", "one").returncode == 0
        assert quorl("worker", "run", "quorl.demo:app", "--burst").returncode == 0
        assert quorl("task", "result", "one").stdout.strip() == "9"
        assert call(url, "GET", "/version").json["version"] == quorl_version
        assert call(url, "GET", "/docs").headers["content-type"].startswith("text/html")
        node.terminate()
        assert node.wait(20) == 0


@pytest.mark.slow
def test_every_file_that_belongs_to_the_package_is_in_it(wheel: Path, sdist: Path) -> None:
    """Also what is no module, such as the pages that a node serves."""
    ours = {f"quorl/{name}" for name in kept_files("client", "cluster")}
    assert set(zipfile.ZipFile(wheel).namelist()) >= ours
    with tarfile.open(sdist) as archive:
        assert {name.partition("/src/")[2] for name in archive.getnames()} >= ours


def kept_files(*rooms: str) -> list[str]:
    """What git keeps below these; in an archive of it, which has nothing else, what is there."""
    if not (ROOT / ".git").exists():
        found = [path.relative_to(ROOT) for room in rooms for path in (ROOT / room).rglob("*") if path.is_file()]
        return [str(path) for path in found if "__pycache__" not in path.parts]
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        *rooms,
    ]  # whoever owns the checkout: in a container, another user
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_client_loads_no_server() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
        "import quorl.client\n"
        "loaded = [name for name in ('pysyncobj', 'aiohttp.web', 'rich', 'quorl.cluster.machine', 'quorl.cluster.node')\n"
        "          if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    run(program, Path(sys.executable), ROOT)


def run(program: str, python: Path, folder: Path, environment: dict[str, str] | None = None) -> None:
    command = [str(python), "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_library_is_pinned_and_the_extras_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "pysyncobj==0.3.17" in project["dependencies"]
    assert set(project["optional-dependencies"]) == {"all", "bench", "dev", "otel", "watch"}
