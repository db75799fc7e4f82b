"""Which raw content users see a replacement of. Redacted is the union of all matches; each maximal run of it becomes
one replacement: that of the match that begins it. A text that a verdict gave instead is shown where its match makes a
run for itself; it may hold what another match is about.
"""

from dispatcher.policies.matches import Match


class Redactions:
    """runs: not let out yet, in order; they neither overlap nor touch."""

    def __init__(self) -> None:
        self.runs: list[Match] = []
        self._end = -1  # of the last run, as far as it was let out
        self.applied: tuple[str, ...] = ()  # the policies that redacted what was applied last

    def add(self, match: Match) -> None:
        runs = self.runs
        first = len(runs)
        while first and runs[first - 1].end >= match.start:
            first -= 1
        after = []
        for run in runs[first:]:
            if run.start > match.end:
                after.append(run)
            else:
                match = _joined(match, run)
        runs[first:] = [match, *after]

    def join(self, other: "Redactions") -> None:
        """Add what that has, which nothing was let out of yet."""
        runs, at = self.runs, 0
        while at < len(other.runs) and runs and runs[-1].end >= other.runs[at].start:
            self.add(other.runs[at])
            at += 1
        runs += other.runs[at:]

    def whole(self, until: int) -> int:
        """Up to where may be let out if all before `until` is certain: a text from a verdict stands for all of its run,
        which has to be certain.
        """
        for run in self.runs:
            if run.text is not None and run.start < until < run.end:
                return run.start
        return until

    def apply(self, raw: str, start: int) -> str:
        """What users see of this raw content, which is decided, and which begins at that index."""
        end, at, done = start + len(raw), start, 0
        shown: list[str] = []
        applied: dict[str, None] = {}  # in order
        for first, last, rule, text in self.runs:  # of one text, tens of thousands: 0.2 µs each
            if first >= end:
                break
            if first > at:
                shown.append(raw[at - start : first - start])
            if first >= start and first != self._end:  # else it goes on with one that was let out
                shown.append(rule.replacement if text is None else text)
            applied[rule.policy] = None
            if last > end:
                at = end
                break
            at = last
            done += 1
        if at > start:
            self._end = at
        del self.runs[:done]
        self.applied = tuple(applied)
        return "".join([*shown, raw[at - start :]])

    def resume(self, decided: int) -> None:
        """What stands before that index was let out earlier."""
        if any(run.end == decided for run in self.runs):
            self._end = decided
        self.runs = [run for run in self.runs if run.end > decided]


def _joined(one: Match, other: Match) -> Match:
    if one == other:  # the same verdict, asked for twice
        return one
    first = min(one, other, key=lambda match: (match.start, match.rule.policy, match.rule.replacement))
    return Match(first.start, max(one.end, other.end), first.rule)
