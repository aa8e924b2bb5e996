"""A long run under kills, full disks, damaged checkpoints and hostile completions: `make soak SEED=1`.

A run is broken again and again and goes on; in the end it must have the numbers of one that nothing happened to. After
every event it must have answered as documented: it went on, was killed, stopped with one line or refused with one line.
Anything else (a traceback, a hang, a process left behind, a file that a completion has written, other numbers) ends the
soak with exit status 1 and keeps its folder.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "train"))

from comparing import differing, read
from faults import BALLAST, damage, disk, fill, tree
from hostile import write_bed
from runs import LONGEST, PATIENCE, Run, SoakError, answer, logged, say

from clipo_train.folders import checkpoints

CALLS = (
    *("os:fsync", "os:open", "os:unlink", "os:rmdir", "os:mkdir", "pathlib:Path.rename", "pathlib:Path.replace"),
    *("torch:save", "clipo_train.checkpoint:save_file", "clipo_train.jsonl:append", "clipo_train.manifest:_hash"),
)
"""Where a run meets the disk."""


class Soak:
    """The run that is broken.

    Args:
        folder: With the bed and, on its disk, the run.
        steps: Length of the run.
        mounted: Its disk is its own.
        rng: Draws the events.
    """

    def __init__(self, folder: Path, steps: int, mounted: bool, rng: random.Random):
        self.folder, self.steps, self.mounted, self.rng = folder, steps, mounted, rng
        self.run_dir = folder / "disk" / "run"
        self.arguments = ["train", str(folder / "config.yaml"), "--run_dir", str(self.run_dir), "--resume"]
        self.count: Counter[str] = Counter()

    def event(self, kind: str, at_step: int) -> None:
        """One event, once the run is at a step."""
        self.kept = self._saved()
        done, how = getattr(self, f"_{kind}")(at_step)
        self.count[kind] += 1
        say(f"step {logged(self.run_dir):3}  {done}  ->  {how}")
        if (self.folder / "marker").exists():
            raise SoakError("a completion was executed: it has written the marker")
        if self._saved() < self.kept:
            raise SoakError(f"checkpoints are lost: the last was of step {self.kept}, is of step {self._saved()}")

    def _signal(self, at_step: int) -> tuple[str, str]:
        number, group = self._any_signal()
        run = Run(self.arguments)
        self._wait(run, at_step)
        time.sleep(self.rng.uniform(0, 0.3))
        return self._send(run, number, group)

    def _loading(self, _: int) -> tuple[str, str]:
        number, group = self._any_signal()
        run = Run(self.arguments, cold=True)
        time.sleep(self.rng.uniform(1, 9))
        done, how = self._send(run, number, group)
        return f"{done}, soon after its start", how

    def _call(self, at_step: int) -> tuple[str, str]:
        call, count, after = self.rng.choice(CALLS), self.rng.randint(1, 20), self.rng.random() < 0.5
        run = Run(self.arguments, call=call, count=count, done=after)
        self._wait(run, max(at_step, logged(self.run_dir) + 10))
        self._send(run, signal.SIGKILL, group=True)
        return f"SIGKILL {'after' if after else 'at'} call {count} of {call}", answer(run, killed=True)

    def _full(self, at_step: int) -> tuple[str, str]:
        latest = max(checkpoints(self.run_dir), default=None)
        left = self.rng.randrange(sum(map(len, tree(latest).values())) // 2 if latest else 2**16)
        run = Run(self.arguments, largest=None if self.mounted else left)
        if self.mounted and self.rng.random() < 0.8:  # else it is full from the start
            self._wait(run, at_step)
        deadline = time.monotonic() + PATIENCE
        while self.mounted and not run.ended() and time.monotonic() < deadline:
            fill(self.run_dir.parent, left)
            time.sleep(0.1)
        how = answer(run, refusal=r"\S+: expected .* (No space left on device|File too large).*")
        (self.run_dir.parent / BALLAST).unlink(missing_ok=True)
        return f"a disk with {left} bytes left" if self.mounted else f"files of at most {left} bytes", how

    def _damage(self, _: int) -> tuple[str, str]:
        found = checkpoints(self.run_dir)
        if not found:
            return "no checkpoint to damage", "nothing"
        checkpoint = self.rng.choice(found)
        aside = shutil.copytree(self.run_dir, self.folder / "aside")
        what, path = damage(checkpoint, self.rng)
        before = tree(self.run_dir)
        name = path.relative_to(checkpoint)
        named = ".*" if name.name == "manifest.json" else f".*'{name}'.*"
        if checkpoint == found[-1]:
            how = answer(Run(self.arguments), refusal=f"resume: expected .*{checkpoint.name}{named}")
            if tree(self.run_dir) != before:
                raise SoakError("a damaged checkpoint was refused, and files were changed")
            if len(found) > 1 and self.rng.random() < 0.5:
                shutil.rmtree(checkpoint)
                self.kept, how = _step(found[-2]), f"{how}; removed"
            else:
                shutil.rmtree(self.run_dir)
                shutil.copytree(aside, self.run_dir)
        else:  # which is not needed
            run = Run(self.arguments)
            self._wait(run, logged(self.run_dir) + 5)
            _, how = self._send(run, signal.SIGTERM, group=False)
        shutil.rmtree(aside)
        return f"{what} in {checkpoint.name}/{name}", how

    def finish(self) -> str:
        """The run to its end."""
        return answer(Run(self.arguments))

    def _any_signal(self) -> tuple[signal.Signals, bool]:
        return self.rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)), self.rng.random() < 0.5

    def _send(self, run: Run, number: signal.Signals, group: bool) -> tuple[str, str]:
        for _ in range(self.rng.choice((1, 1, 2))):  # a launcher passes on what all have got already
            if not run.ended():
                run.send(number, group=group)
            time.sleep(self.rng.uniform(0, 0.1))
        killed = number == signal.SIGKILL
        how = answer(run, killed=killed, asked=0 if killed else number)
        return f"{number.name} to {'all its processes' if group else 'the trainer'}", how

    def _wait(self, run: Run, at_step: int) -> None:
        deadline = time.monotonic() + LONGEST
        while not run.ended() and logged(self.run_dir) < at_step:
            if time.monotonic() > deadline:
                raise SoakError(f"the run hangs after step {logged(self.run_dir)}")
            time.sleep(0.01)

    def _saved(self) -> int:
        return max(map(_step, checkpoints(self.run_dir)), default=-1)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def write_config(folder: Path, steps: int) -> None:
    rows = str(folder / "rows.jsonl")
    values = {
        "steps": steps,
        "model": {"path": str(folder / "model")},
        "data": {"train": rows, "verifier": "auto", "verifier_timeout": 30, "check_rows": 0},
        "rollout": {"batch_size": 16, "group_size": 8, "max_new_tokens": 8},
        "optimizer": {"learning_rate": 1e-4, "schedule": "cosine", "warmup_updates": 10, "minibatch_size": 8},
        "clipo": {"dim": 16},
        "checkpoint": {"every": 7},
        "logging": {"completions": 2},
        "evaluation": {"sets": {"rows": rows}, "every": 100, "temperature": 1.0},
    }
    values["optimizer"] |= {"micro_batch_size": 8}
    (folder / "config.yaml").write_text(json.dumps(values))


def soak(folder: Path, steps: int, events: int, rng: random.Random) -> str:
    """The closing line.

    Raises:
        SoakError: Something else came of it than it should.
    """
    write_bed(folder, folder / "marker")
    write_config(folder, steps)
    whole, start = folder / "unbroken", time.monotonic()
    how = answer(Run(["train", str(folder / "config.yaml"), "--run_dir", str(whole)]))
    say(f"unbroken: {how}, {time.monotonic() - start:.0f} s")
    with disk(folder / "disk") as mounted:
        if not mounted:
            say("mounting is not permitted here: files are limited in size, in place of a full disk")
        broken = Soak(folder, steps, mounted, rng)
        try:
            kinds = ("signal", "loading", "call", "full", "damage")
            for number, at_step in enumerate(sorted(rng.choices(range(steps), k=events))):
                broken.event(kinds[number % len(kinds)], at_step)
            how = broken.finish()
            say(f"step {logged(broken.run_dir):3}  nothing  ->  {how}")
            places = differing(read(broken.run_dir), read(whole))
            if how != "finished" or places:
                raise SoakError(f"other numbers than those of the unbroken run: {', '.join(places)[:300]}")
        except BaseException:
            shutil.copytree(broken.run_dir, folder / "broken", symlinks=True)  # its disk goes away
            raise
    told = ", ".join(f"{count} x {kind}" for kind, count in broken.count.items())
    return f"{steps} steps with {told}: the numbers of the unbroken run"


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that its disk goes away
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--events", type=int, default=25)
    given = parser.parse_args()
    folder, start = Path(tempfile.mkdtemp(prefix="clipo-soak-")), time.monotonic()
    try:
        closing = soak(folder, given.steps, given.events, random.Random(given.seed))
    except SoakError as error:
        say(f"soak: FAILED with seed {given.seed}, see {folder}: {error}")
        return 1
    shutil.rmtree(folder)
    say(f"soak: {closing}; seed {given.seed}, {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
