"""
Where a server under load spends its CPU time: `python -m benchmarks.sampled durable [--connections 64] [--seconds 8]`.

Two views of the same load. A timer of the process's own CPU time looks at the Python stack about each millisecond: by
function alone, by function with all that it calls, and by package. perf, where it is installed, looks at the machine code: how
much is the kernel, the interpreter, uvloop. What the timer hits inside C is told by the Python function that runs next, so
the event loop's own work shows up at the entrance of callbacks; perf is right there.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import redirect
from benchmarks.beacon import beacons
from benchmarks.floor import TABLE as RAW
from benchmarks.rig import Load, Rig, a_rig
from benchmarks.rivals import TABLES

INTERVAL = 0.001  # seconds of CPU time; the kernel may round it up to its own tick
ENVIRONMENT = "BENCH_SAMPLES"
"""Names the file for the samples; `serve.py` looks for it."""

VARIANTS: dict[str, tuple[str, str]] = {
    "bare": ("benchmarks.apps:bare", "beacon"),
    "starlette": ("benchmarks.apps:starlette", "beacon"),
    "floor": ("benchmarks.floor:app", "beacon"),
    "durable": ("benchmarks.apps:wrapped", "beacon"),
    "proxied": ("benchmarks.apps:proxied", "beacon"),
    "working": ("benchmarks.apps:working", "beacon"),
    "insert": ("benchmarks.rivals:insert", "beacon"),
    "orm": ("benchmarks.rivals:orm", "beacon"),
    "page": ("benchmarks.apps:wrapped", "page"),
    "redirect": ("benchmarks.apps:wrapped", "link"),
}


class Sampler:
    """Counts stacks while the process works; `write` tells."""

    def __init__(self) -> None:
        self._stacks: Counter[tuple[Any, ...]] = Counter()
        self._collections: Counter[int] = Counter()
        self._collecting: Counter[int] = Counter()
        self._began = self._since = 0

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        gc.callbacks.append(self._collect)

    def forget(self) -> None:
        """Begin anew: what came before was the start."""
        for counter in (self._stacks, self._collections, self._collecting):
            counter.clear()
        self._since = time.process_time_ns()

    def _collect(self, phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.process_time_ns()
        else:
            self._collections[about["generation"]] += 1
            self._collecting[about["generation"]] += time.process_time_ns() - self._began

    def _look(self, _signal: int, frame: FrameType | None) -> None:
        stack = []
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        self._stacks[tuple(stack)] += 1

    def write(self, path: Path) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        alone: Counter[str] = Counter()
        with_calls: Counter[str] = Counter()
        packages: Counter[str] = Counter()
        total = self._stacks.total()
        for stack, count in self._stacks.items():
            alone[_name(stack[0])] += count
            packages[_package(stack[0])] += count
            for code in set(stack):
                with_calls[_name(code)] += count
        used = time.process_time_ns() - self._since
        parts = [f"{total} samples in {used / 1e9:.2f} s of CPU time; the cycle collector:"]
        for generation, count in sorted(self._collections.items()):
            took = self._collecting[generation]
            parts.append(
                f"  {took / used:7.1%}  generation {generation}: {count} times, {took / count / 1e3:.0f} µs each"
            )
        for title, counter, most in (
            ("by package, alone", packages, 20),
            ("by function, with all that it calls", with_calls, 70),
            ("by function, alone", alone, 45),
        ):
            parts.append(f"\n{title}")
            parts += [f"  {count / total:7.1%}  {name}" for name, count in counter.most_common(most)]
        path.write_text("\n".join(parts) + "\n")


def _name(code: Any) -> str:
    place = code.co_filename.partition("site-packages/")[2] or code.co_filename
    return f"{place.removeprefix(os.getcwd() + '/')}:{code.co_qualname}"  # noqa: PTH109


def _package(code: Any) -> str:
    name = _name(code)
    if name.startswith("goodanalytics/"):
        return name.partition(":")[0]
    return "standard library" if name.startswith(("/", "<")) else name.partition("/")[0]


def main() -> None:
    """Start one variant, load it, print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampled", description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="requests a second; as many as are answered if unset"
    )
    parser.add_argument("--links", type=int, default=1)
    options = parser.parse_args()
    app, kind = VARIANTS[options.variant]
    path = {"beacon": "/ga/t/event", "page": "/page", "link": "/l/"}[kind]
    load = Load(kind, path, options.connections, options.rate, options.links)
    with tempfile.TemporaryDirectory() as place, a_rig(options.seconds) as rig:
        told = Path(place) / "samples"
        os.environ[ENVIRONMENT] = str(told)
        prepare = (
            (redirect.MAKE_LINKS,)
            if kind == "link"
            else TABLES
            if "rivals" in app
            else (RAW,)
            if "floor" in app
            else ()
        )
        server = rig.start(options.variant, app, ours="apps" in app, prepare=prepare)
        rig.drive(options.variant, beacons(64) if kind == "beacon" else load, 1)
        server.child.send_signal(signal.SIGUSR1)
        native = _native(rig, server.pid, options.seconds, Path(place) / "perf.data")
        sample = rig.drive(options.variant, load)
        print(
            f"{sample.rate:,.0f} answers/s; {rig.meter.unit} an answer: server {sample.server}, PostgreSQL {sample.postgres}"
        )
        if native is not None:
            native.wait(30)
            print(_report(Path(place) / "perf.data"))
        rig.stop(options.variant)
        deadline = time.monotonic() + 10
        while not told.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        print(told.read_text())


def _native(_rig: Rig, pid: int, seconds: int, data: Path) -> subprocess.Popen[bytes] | None:
    if shutil.which("perf") is None:
        print("perf is not installed; only the Python stack is looked at", file=sys.stderr)
        return None
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = ["perf", "record", "-q", "-F", "999", "-e", "cpu-clock", "-p", str(pid), "-o", str(data)]
    return subprocess.Popen([*command, "--", "sleep", str(max(1, seconds - 1))], **quiet)


def _report(data: Path) -> str:
    parts = []
    for sort, most in (("dso", 14), ("dso,symbol", 40)):
        said = subprocess.run(
            ["perf", "report", "-q", "--stdio", "--percent-limit", "0.4", "--sort", sort, "-i", str(data)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        parts.append("\n".join([line for line in said.splitlines() if line.strip()][:most]))
    return "machine code\n" + "\n\n".join(parts)


if __name__ == "__main__":
    main()
