"""Bring the dashboard's modules into ``cluster/dashboard/vendor``: ``python scripts/vendor_dashboard.py [--check]``.

Every package is pinned by version and by the SHA-256 of its archive, fetched with ``npm pack`` (no package's script runs), and copied without
a bundler: only the names that modules import each other by become relative paths, because a page under a strict content
security policy has no inline import map. Licences lie beside the modules. ``--check`` compares instead of writing.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).resolve().parent.parent / "cluster" / "dashboard" / "vendor"


class Package(NamedTuple):
    """A package, and which of its files become which of ours."""

    name: str
    version: str
    sha256: str
    files: dict[str, str]


PACKAGES = (
    Package(
        "preact",
        "11.2.0",
        "3c4456766bd32b6b534d52bf4e9c2a29b33e7eedf6e96ed479300ba1a7888ebf",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js", "LICENSE": "preact.LICENSE"},
    ),
    Package(
        "htm",
        "3.1.1",
        "2425b9bee11409177bcabc7f32e319926fc6690c1701c0b257c88bdff2d5ba90",
        {"dist/htm.mjs": "htm.js", "LICENSE": "htm.LICENSE"},
    ),
    Package(
        "@preact/signals-core",
        "1.14.5",
        "94c421ac996214c94f532fb4c43d8ede048a16df0cd9538ffb965174dbe8daba",
        {"dist/signals-core.mjs": "signals-core.js", "LICENSE": "signals-core.LICENSE"},
    ),
    Package(
        "@preact/signals",
        "2.11.4",
        "66ea8221dd8aaa0da2365d49c3f116b071d56cfb63b2e16c072c6b4e08a928b7",
        {"dist/signals.mjs": "signals.js", "LICENSE": "signals.LICENSE"},
    ),
)
SPECIFIERS = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
}
_MAP = re.compile(r"\n?//# sourceMappingURL=\S+\s*$")


def adapted(name: str, text: str) -> str:
    """A file as the page takes it: relative imports, no source map."""
    if not name.endswith(".js"):
        return text
    text = _MAP.sub("\n", text)
    return re.sub(r'from\s*"([^"./][^"]*)"', lambda found: f'from"{SPECIFIERS[found[1]]}"', text)


def fetched(package: Package, folder: Path) -> dict[str, str]:
    """The files of a package by our names; raises ``SystemExit`` if its archive is not the one that is pinned."""
    command = ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    packed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
    archive = folder / packed
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        sys.exit(f"{package.name} {package.version}: its archive has the SHA-256 {digest}, not {package.sha256}")
    found = {}
    with tarfile.open(archive) as tar:
        for path, name in package.files.items():
            member = tar.extractfile(f"package/{path}")
            assert member is not None, path
            found[name] = adapted(name, member.read().decode())
    return found


def main() -> None:
    """Write the folder, or compare it."""
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            files |= fetched(package, Path(folder))
    lines = "".join(f"{package.name} {package.version} sha256:{package.sha256}\n" for package in PACKAGES)
    files["VERSIONS"] = f"Written by scripts/vendor_dashboard.py; do not edit.\n{lines}"
    if "--check" in sys.argv[1:]:
        differing = [name for name, text in files.items() if (VENDOR / name).read_text(encoding="utf-8") != text]
        sys.exit(f"Not as packaged: {', '.join(differing)}" if differing else 0)
    VENDOR.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (VENDOR / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
