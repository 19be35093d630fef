"""The examples of README.md and docs/*.md run as they stand there, one page after the other, each against a cluster of its own.

Only the addresses are others. A block of Python that begins with the name of a file is written to that file, for the blocks
after it; every other one is a program. What cannot run says why in the page itself; see ``tests/pages.py``.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import READY_S, LocalCluster, call, cluster_in, die_with_parent, until
from tests.pages import PAGES, Example, examples

RUNNABLE = {"sh", "python"}
EXAMPLE_S = 60.0
_NAME = re.compile(r"# (\w+\.py)\n")
_WITH = [page for page in PAGES if any(one.kind in RUNNABLE and not one.reason for one in examples(page))]


class Reader:
    """Somebody who follows a page: a folder, a terminal, and what was started in it."""

    def __init__(self, folder: Path, cluster: LocalCluster) -> None:
        self._folder = folder
        self._cluster = cluster
        self._addresses = {f"127.0.0.1:{7101 + i}": url.removeprefix("http://") for i, url in enumerate(cluster.urls)}
        quiet = {name: text for name, text in os.environ.items() if not name.startswith(("QUORL_", "PYTHON"))}
        self._environment = {
            **quiet,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "QUORL_SERVER": ",".join(cluster.urls),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "PYTHONWARNINGS": "error",
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def follow(self, example: Example) -> None:
        text = example.text
        for there, here in self._addresses.items():
            text = text.replace(there, here)
        if example.kind == "python" and (named := _NAME.match(text)):
            (self._folder / named[1]).write_text(text, encoding="utf-8")
            return
        command = [sys.executable, "-c", text] if example.kind == "python" else ["bash", "-euo", "pipefail", "-c", text]
        if example.stays:
            self._start(["bash", "-c", f"exec {text}"])
            return
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=EXAMPLE_S, check=False, stdin=subprocess.DEVNULL
        )  # fmt: skip
        said = f"{example}\n{text}\n{done.stdout}\n{done.stderr}\n{self.output()}"
        assert done.returncode == 0, said
        assert example.output in done.stdout, said
        assert "/problems/" not in done.stdout, said  # curl ends with 0 whatever it is answered

    def _start(self, command: list[str]) -> None:
        """Start what stays, and wait until the cluster knows one worker more, for that is what stays in these pages."""
        before = self._workers()
        with (self._folder / "output.log").open("ab") as output:
            self.running.append(
                subprocess.Popen(
                    command,
                    cwd=self._folder,
                    env=self._environment,
                    stdout=output,
                    stderr=output,
                    stdin=subprocess.DEVNULL,
                    preexec_fn=die_with_parent,  # noqa: PLW1509 - as the harness starts its nodes
                )
            )
        until(lambda: self._workers() > before, "the worker to register", READY_S, self.output)

    def _workers(self) -> int:
        return len(
            call(self._cluster.urls[0], "GET", "/v1/workers?status=ALIVE&consistency=linearizable").json["items"]
        )

    def output(self) -> str:
        log = self._folder / "output.log"
        return log.read_text(encoding="utf-8") if log.exists() else ""

    def leave(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        for process in self.running:
            assert process.wait(30) == 0, self.output()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    folder = tmp_path / "folder"
    folder.mkdir()
    with cluster_in(tmp_path / "cluster") as cluster:
        made = Reader(folder, cluster)
        yield made
        for process in made.running:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", _WITH, ids=lambda page: page.stem)
def test_the_examples_of_a_page_run_as_they_stand_there(page: Path, reader: Reader) -> None:
    for example in examples(page):
        if example.kind in RUNNABLE and not example.reason:
            reader.follow(example)
    reader.leave()
