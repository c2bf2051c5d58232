"""What a streamed run adds up to, and whether it is what was promised. Pure: entries in, figures out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.demo.counts import ANSWERED, Tally
from benchmarks.demo.journal import Failed, Replied, Reviewed, Stumbled
from benchmarks.demo.report import percent
from benchmarks.demo.stream.scores import Rows, Scores
from benchmarks.figures import Check, percentile
from benchmarks.screen import check_table
from gateway.samples import ClosingRow
from trainer.adjudicate import Share
from trainer.rows import CertificateRow, Row

PLACES: Final = 4


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold that was proved, as the ledger has it: after how many counted requests, and what it really is worth.

    `risk` in [0, 1] is the share of wrong ones among all rows of the file that it lets through, `coverage` their share.
    """

    certificate: str
    tau: float
    requests: int
    coverage: float
    risk: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the proof stood when the gateway was last asked; `tau` None: none is in force."""

    stage: str = ""
    tau: float | None = None
    audits: int = 0
    audits_needed: int | None = None
    advice: str = ""
    alarm: str = ""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What clients got: requests that came back, those answered under a certificate, and the wrong ones of these."""

    requests: int
    certified: int
    wrong: int
    # Answers that name no certificate: none is promised for them, and none should be there.
    uncertified: int

    @property
    def coverage(self) -> float:
        """The share of all requests that was answered under a certificate."""
        return self.certified / self.requests if self.requests else 0.0

    @property
    def error(self) -> float | None:
        """The share of wrong answers under a certificate; None without any."""
        return self.wrong / self.certified if self.certified else None


class Proofs:
    """The thresholds that were proved, in order."""

    def __init__(self, scores: Scores) -> None:
        self._scores = scores
        self.all: list[Proof] = []

    def add(self, certificate: str, tau: float, requests: int) -> None:
        """Take in what is proved now; nothing where it was already."""
        if any((proof.certificate, proof.tau) == (certificate, tau) for proof in self.all):
            return
        coverage, risk = self._scores.coverage(tau), self._scores.risk(tau)
        self.all.append(Proof(certificate=certificate, tau=tau, requests=requests, coverage=coverage, risk=risk))

    def violations(self, alpha: float) -> int:
        """Return how many of them let more wrong ones through than `alpha`."""
        return sum(1 for proof in self.all if proof.risk > alpha)


def proved(rows: Iterable[Row], scores: Scores) -> Proofs:
    """Return every threshold that the rows of a chain prove, however short it was in force.

    A certificate is called by its process and a number, which goes on with each other threshold.
    """
    made, requests = Proofs(scores), 0
    last: dict[str, tuple[int, float]] = {}
    for row in rows:
        match row:
            case ClosingRow():
                requests += row.eligible
            case CertificateRow(epoch=process, tau=float() as tau):
                number, before = last.get(process, (0, None))
                if tau != before:
                    last[process] = number + 1, tau
                    made.add(f"{process}.{number + 1}", tau, requests)
            case _:
                pass
    return made


def serve(replied: Sequence[Replied], rows: Rows, scores: Scores) -> Served:
    """Return what clients got, beside the truth; `rows` has the row of each request."""
    answered = [entry for entry in replied if entry.decision == ANSWERED]
    certified = [entry for entry in answered if entry.certificate]
    wrong = sum(1 for entry in certified if entry.label != str(scores.labels[rows[entry.index]]))
    return Served(
        requests=len(replied), certified=len(certified), wrong=wrong, uncertified=len(answered) - len(certified)
    )


def judge(
    tally: Tally,
    served: Served,
    proofs: Proofs,
    *,
    alpha: float,
    delta: float,
    requests: int,
    left_open: int,
    verified: bool,
) -> list[Check]:
    """Return every promise of the run beside what was found."""
    known = {proof.certificate for proof in proofs.all}
    strange = {entry.certificate for entry in tally.of(Replied) if entry.certificate} - known
    error = Share(count=served.wrong, total=served.certified)

    def none(name: str, value: float) -> Check:
        return Check(name=name, value=value, goal="= 0", ok=value == 0)

    return [
        Check(
            name="requests that came back",
            value=served.requests,
            goal=f"= {requests}",
            ok=served.requests == requests,
        ),
        none("failed requests", len(tally.of(Failed))),
        none("deferrals and audits left open in the queue", left_open),
        none("answers that name no certificate", served.uncertified),
        none("certificates in replies that the ledger does not have", len(strange)),
        Check(
            name="proved thresholds whose true risk is above alpha",
            value=proofs.violations(alpha),
            goal=f"= 0, but for {delta:.0%} of all runs",
            ok=proofs.violations(alpha) == 0,
        ),
        Check(
            name="error among answers under a certificate",
            value=round(error.estimate, PLACES),
            goal=f"not above {alpha:g} by more than chance",
            ok=error.lower <= alpha,
        ),
        Check(name="`demur verify` agrees", value=float(verified), goal="= 1", ok=verified),
    ]


def summary(
    tally: Tally,
    served: Served,
    proofs: Proofs,
    standing: Standing,
    checks: Sequence[Check],
    *,
    alpha: float,
    oracle: float,
    facts: Mapping[str, object],
) -> dict[str, object]:
    """Return the object that `--json` prints; `facts` (machine, seconds, ...) go in as they are."""
    final = next((proof for proof in reversed(proofs.all) if proof.tau == standing.tau), None)
    latencies = [entry.latency_ms for entry in tally.of(Replied)]
    return {
        "requests": served.requests,
        "coverage_stream": round(served.coverage, PLACES),
        "coverage_final": round(final.coverage, PLACES) if final is not None else 0.0,
        "coverage_oracle": round(oracle, PLACES),
        "realised_error": None if served.error is None else round(served.error, PLACES),
        "audits": standing.audits,
        "certified_alpha": alpha if final is not None else None,
        "violations": proofs.violations(alpha),
        "risk_final": round(final.risk, 5) if final is not None else None,
        "audits_needed": standing.audits_needed,
        "stage": standing.stage,
        "advice": standing.advice,
        "alarm": standing.alarm,
        "proofs": [msgspec.to_builtins(proof) for proof in proofs.all],
        "answered": served.certified + served.uncertified,
        "deferred": len(tally.deferrals),
        "reviews": len(tally.of(Reviewed)),
        "reviews_wrong": sum(1 for entry in tally.of(Reviewed) if entry.label != entry.truth),
        "retries": len(tally.of(Stumbled)),
        "failed_requests": len(tally.of(Failed)),
        "p50_ms": round(percentile(latencies, 0.50), 2),
        "p99_ms": round(percentile(latencies, 0.99), 2),
        **facts,
        "checks": [msgspec.to_builtins(check) for check in checks],
        "ok": all(check.ok for check in checks),
    }


def render(found: Mapping[str, object], proofs: Sequence[Proof], checks: Sequence[Check]) -> RenderableType:
    """Return the whole report for a terminal; `found` as `summary` makes it."""
    table = Table(title="Thresholds that were proved", title_justify="left", box=None, padding=(0, 2))
    for heading in ("after requests", "tau", "coverage", "true risk", "certificate"):
        table.add_column(heading, justify="right")
    for proof in proofs:
        table.add_row(
            str(proof.requests), f"{proof.tau:.4f}", percent(proof.coverage), f"{proof.risk:.2%}", proof.certificate
        )
    error = found["realised_error"]
    shown = "no answer yet" if error is None else f"{error:.2%} of them wrong"
    lines = [
        f"{found['requests']} requests, {found['coverage_stream']:.1%} answered under a certificate, {shown}",
        f"the last threshold lets {found['coverage_final']:.1%} through; the best is {found['coverage_oracle']:.1%}",
        f"{found['audits']} audits counted, {found['reviews']} reviews by people, {found['reviews_wrong']} wrong",
        f"stage {found['stage']}: {found['advice']}",
        f"{found['seconds']} s on {found['machine']}",
    ]
    return Group(table, Text(), *(Text(f"  {line}") for line in lines), Text(), check_table(checks))
