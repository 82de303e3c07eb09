"""
`python -m benchmarks [--quick] [--only beacon,redirect] [--rounds 5] [--seconds 3]`.

Runs every subject's measures in interleaved rounds, prints what is reached and writes `benchmarks/results.md` (not with
`--quick` or `--only`, whose figures are for whoever is tuning). A full run takes about 25 minutes.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import beacon, dispatch, identity, instructions, memory, middleware, redirect, report, sale
from benchmarks.measures import EndToEnd, Measure, Rounds, Row, Subject
from benchmarks.rig import Rig, a_rig

SUBJECTS = {
    s.name: s
    for s in (
        beacon.SUBJECT,
        middleware.SUBJECT,
        redirect.SUBJECT,
        identity.SUBJECT,
        sale.SUBJECT,
        dispatch.SUBJECT,
        instructions.SUBJECT,
        memory.SUBJECT,
    )
}
RESULTS = Path(__file__).parent / "results.md"
FULL_SECONDS = 1_500  # the whole run; no round is begun that would not be over by then
QUICK_SECONDS = 75
MEMORY_SHARE = 0.33
WORTH_MENTIONING = 5  # rounds
FULL_SLICE = 3  # seconds


def main() -> int:
    options = _options()
    if sys.platform != "linux" or shutil.which("wrk") is None:
        print(
            "!! make bench needs Linux and wrk. This machine lacks them, so nothing was measured.\n"
            "!! On Debian or Ubuntu: apt-get install -y wrk linux-perf valgrind (perf counts instructions where it can, else valgrind)",
            file=sys.stderr,
        )
        return 2
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that servers are ended and directories removed
    subjects = [SUBJECTS[name] for name in options.only]
    is_partial = (
        len(subjects) < len(SUBJECTS) or options.rounds < WORTH_MENTIONING or options.seconds < FULL_SLICE
    )
    began = time.monotonic()
    deadline = began + (QUICK_SECONDS if options.quick else FULL_SECONDS)
    with a_rig(options.seconds) as rig:
        _say(f"costs are {rig.meter.unit}; servers on core {rig.cores[0]}, the rest on core {rig.cores[1]}")
        for subject in subjects:
            subject.start(rig)
        for server in rig.servers.values():
            server.await_ready()
        _say(f"{len(rig.servers)} servers are up after {time.monotonic() - began:.0f} s")
        text, count = _run(rig, subjects, options, deadline)
    print("\n" + text)
    if is_partial:
        _say(f"{RESULTS.name} is only written by a full run")
    else:
        RESULTS.write_text(text)
        _say(f"written to {RESULTS}")
    if count < WORTH_MENTIONING and any(s.measures for s in subjects):
        _say(f"{count} rounds are too few to rest anything on; a full run makes {WORTH_MENTIONING}")
    return 0


def _run(
    rig: Rig, subjects: Sequence[Subject], options: argparse.Namespace, deadline: float
) -> tuple[str, int]:
    measures = [measure for subject in subjects for measure in subject.measures]
    loners = [subject for subject in subjects if subject.alone is not None]
    rounds_end = deadline - (MEMORY_SHARE * (deadline - time.monotonic()) if loners and measures else 0)
    if options.quick and measures:
        rounds_end = deadline - 5 * len(loners)
    rounds, count = _rounds(rig, subjects, measures, options, rounds_end)
    rows: list[Row] = [
        row for s in subjects if s.measures and count for row in s.rows(rounds, rig.meter.unit)
    ]
    for subject in loners:
        if subject.alone is not None:
            _say(f"{subject.name}, by itself")
            rows += subject.alone(rig, 3.0 if options.quick else max(3.0, deadline - time.monotonic()))
    notes = [note for m in measures if isinstance(m, EndToEnd) for note in m.notes]
    about = report.about(rig.meter.unit, count, options.seconds, rig.cores, datetime.now(UTC))
    return report.report(rows, measures if count else [], rounds, notes, about), count


def _rounds(
    rig: Rig,
    subjects: Sequence[Subject],
    measures: Sequence[Measure],
    options: argparse.Namespace,
    end: float,
) -> tuple[Rounds, int]:
    """All rounds that fit; the first one of a full run warms up and is not counted."""
    if not measures:
        return {}, 0
    rounds: Rounds = {measure.name: [] for measure in measures}
    longest = 0.0
    warm_up = 0 if options.quick else 1
    count = 0
    for number in range(options.rounds + warm_up):
        if count and time.monotonic() + longest > end:
            _say(f"no time for more than {count} rounds")
            break
        is_warm_up = number < warm_up
        rig.slice_seconds = 1 if is_warm_up else options.seconds
        began = time.monotonic()
        for measure in measures if number % 2 == 0 else reversed(measures):
            sample = measure.take(rig, rounds)
            rounds[measure.name].append(sample)
            if options.verbose:
                _say(f"  {measure.name:28} {sample}")
        for subject in subjects:
            subject.between(rig)
        took = time.monotonic() - began
        _say(f"{'warming up' if is_warm_up else f'round {count + 1} of {options.rounds}'}: {took:.0f} s")
        if is_warm_up:
            continue
        longest = max(longest, took)
        count += 1
    return {name: samples[len(samples) - count :] for name, samples in rounds.items()}, count


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds of 1 s, under 90 s in all")
    parser.add_argument(
        "--only", type=_names, default=list(SUBJECTS), help=f"some of {', '.join(SUBJECTS)}, with commas"
    )
    parser.add_argument("--rounds", type=int, help="how many are counted; 5, or 2 with --quick")
    parser.add_argument("--seconds", type=int, help="length of a slice; 3, or 1 with --quick")
    parser.add_argument("--verbose", action="store_true", help="print every sample, absolute figures and all")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else WORTH_MENTIONING)
    options.seconds = options.seconds or (1 if options.quick else FULL_SLICE)
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in SUBJECTS:
            raise argparse.ArgumentTypeError(f"{name!r} is no subject; there are {', '.join(SUBJECTS)}")
    return names


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
