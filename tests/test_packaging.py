"""What is installed: one top-level name, every module, and a client that costs little to import."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("LICENSE", "README.md", "pyproject.toml", "client", "cluster", "src")


def modules() -> set[str]:
    """Every file that belongs into the wheel, as it is named there."""
    found = {"quorl/__init__.py", "quorl/demo.py", "quorl/py.typed", "quorl/systemd.py"}
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
    run(program, tmp_path / "env" / "bin" / "python", tmp_path)


def test_importing_the_client_loads_no_server() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n"
        "import quorl.client\n"
        "loaded = [name for name in ('pysyncobj', 'aiohttp.web', 'rich', 'quorl.cluster.machine', 'quorl.cluster.node')\n"
        "          if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    run(program, Path(sys.executable), ROOT)


def run(program: str, python: Path, folder: Path) -> None:
    done = subprocess.run([str(python), "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_library_is_pinned_and_the_extras_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "pysyncobj==0.3.17" in project["dependencies"]
    assert set(project["optional-dependencies"]) == {"all", "dev", "watch"}
