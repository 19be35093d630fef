"""The dashboard's files as a node serves them: what a browser may load, keep, and run."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from quorl.cluster.api.dashboard import FOLDER, Dashboard
from quorl.cluster.protocol.wire import Answer

SCRIPTS_BYTES_MAX = 80 * 1024
JS_LINES_MAX = 500
ZIPPED = {"accept-encoding": "br, gzip;q=0.8"}


@pytest.fixture(scope="module")
def dashboard() -> Dashboard:
    return Dashboard(["127.0.0.1:7102", "127.0.0.1:7101"])


def got(dashboard: Dashboard, path: str, method: str = "GET", **headers: str) -> Answer:
    answer = dashboard.answer(method, path, {name.replace("_", "-"): text for name, text in headers.items()})
    assert answer is not None
    return answer


def assets() -> list[str]:
    kinds = {".js", ".css", ".svg"}
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in kinds)


def scripts() -> list[Path]:
    return sorted(FOLDER.rglob("*.js"))


def own() -> list[Path]:
    return [path for path in scripts() if path.parent.name != "vendor"]


# -- serving ------------------------------------------------------------------------------------------------------
def test_b1_the_page_is_at_the_root_and_asked_for_anew(dashboard: Dashboard) -> None:
    page = got(dashboard, "/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    again = got(dashboard, "/", if_none_match=f"W/{page.headers['etag']}")
    assert (again.status, again.body) == (304, b"")


def test_b1_everything_that_the_page_names_is_served_and_kept_for_ever(dashboard: Dashboard) -> None:
    page = got(dashboard, "/").body.decode()
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert len(named) > 20
    for path in named:
        answer = got(dashboard, path)
        assert answer.status == 200, path
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_b1_every_module_is_loaded_at_once_and_imports_only_what_is_there(dashboard: Dashboard) -> None:
    page = got(dashboard, "/").body.decode()
    for path in scripts():
        assert f"/{path.relative_to(FOLDER).as_posix()}" in page, "no import waits for another"
        for target in re.findall(
            r'^(?:import|export)\b[^;]*?\bfrom\s*"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert target.startswith("."), "a page under a strict policy has no import map"
            assert (path.parent / target).resolve().is_file(), f"{path}: {target}"


def test_compressed_where_it_is_taken_and_worth_it(dashboard: Dashboard) -> None:
    where = f"/ui/{dashboard.version}"
    for name in assets():
        plain, zipped = (
            got(dashboard, f"{where}/{name}"),
            got(dashboard, f"{where}/{name}", accept_encoding=ZIPPED["accept-encoding"]),
        )
        assert "content-encoding" not in plain.headers
        assert plain.headers["vary"] == zipped.headers["vary"] == "Accept-Encoding"
        if len(plain.body) >= 1024:
            assert zipped.headers["content-encoding"] == "gzip"
            assert gzip.decompress(zipped.body) == plain.body
            assert zipped.headers["etag"] != plain.headers["etag"]
    assert "content-encoding" not in got(dashboard, f"{where}/main.js", accept_encoding="gzip;q=0, br").headers


def test_the_policy_lets_nothing_in_from_elsewhere(dashboard: Dashboard) -> None:
    policy = got(dashboard, "/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; connect-src 'self' http://127.0.0.1:7101 http://127.0.0.1:7102;")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "frame-ancestors 'none'" in policy
    page = got(dashboard, "/").body.decode()
    assert not re.search(r"<script(?![^>]* src=)", page), "no script stands in the page"
    assert "style=" not in page
    assert Dashboard().policy.startswith("default-src 'self'; connect-src 'self';")


@pytest.mark.parametrize(
    "path", ["/ui/", "/ui/0/main.js", "/ui/{v}/index.html", "/ui/{v}/../app.py", "/ui/{v}/vendor/VERSIONS", "/ui/{v}"]
)
def test_nothing_else_is_served(dashboard: Dashboard, path: str) -> None:
    answer = got(dashboard, path.replace("{v}", dashboard.version))
    assert answer.status == 404
    assert answer.headers["cache-control"] == "no-store"


def test_other_paths_and_methods_are_left_to_others(dashboard: Dashboard) -> None:
    assert dashboard.answer("GET", "/v1/cluster", {}) is None
    assert dashboard.answer("GET", "/uix", {}) is None
    refused = got(dashboard, "/", "POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    assert got(dashboard, "/", "HEAD").status == 200
    assert got(dashboard, "/favicon.ico").headers["content-type"].startswith("image/svg+xml")


def test_the_version_follows_from_the_files(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!-- modules -->{base}")
    (tmp_path / "a.js").write_text("1")
    before = Dashboard(folder=tmp_path).version
    assert (
        got(Dashboard(folder=tmp_path), "/").body.decode()
        == f'<link rel="modulepreload" href="/ui/{before}/a.js">/ui/{before}'
    )
    (tmp_path / "a.js").write_text("2")
    assert Dashboard(folder=tmp_path).version != before


# -- size and house rules -----------------------------------------------------------------------------------------
def test_b1_all_scripts_together_stay_small(dashboard: Dashboard) -> None:
    where = f"/ui/{dashboard.version}"
    sizes = {
        path.name: len(got(dashboard, f"{where}/{path.relative_to(FOLDER).as_posix()}", accept_encoding="gzip").body)
        for path in scripts()
    }
    assert sum(sizes.values()) < SCRIPTS_BYTES_MAX, sizes


def test_modules_are_short_and_say_what_they_are_for() -> None:
    for path in own():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("// "), path
        assert len(lines) <= JS_LINES_MAX, path


def test_functions_of_the_page_are_short() -> None:
    """A function at the top of a module ends with a closing brace at the start of a line."""
    for path in own():
        for found in re.finditer(
            r"^(?:export )?(?:async )?function (\w+)[^\n]*\{\n(.*?)^\}",
            path.read_text(encoding="utf-8"),
            re.MULTILINE | re.DOTALL,
        ):
            assert found[2].count("\n") <= 70, f"{path.name}: {found[1]}"


def test_licences_lie_beside_what_is_vendored() -> None:
    vendor = FOLDER / "vendor"
    for name in ("preact", "htm", "signals", "signals-core"):
        assert "Copyright" in (vendor / f"{name}.LICENSE").read_text(encoding="utf-8") or "Apache License" in (
            vendor / f"{name}.LICENSE"
        ).read_text(encoding="utf-8")
    assert (vendor / "VERSIONS").read_text(encoding="utf-8").count(" sha256:") == 4


def test_modules_import_what_they_use_and_nothing_else() -> None:
    imported = re.compile(r'^import \{ ([^}]*) \} from "[^"]+";$', re.MULTILINE)
    for path in own():
        text = path.read_text(encoding="utf-8")
        body = re.sub(r"^import .*$", "", text, flags=re.MULTILINE)
        names = [name for found in imported.findall(text) for name in found.split(", ")]
        assert len(names) == len(set(names)), path
        assert [name for name in names if not re.search(rf"(?<![\w.]){re.escape(name)}\b", body)] == [], path
