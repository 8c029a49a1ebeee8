"""What each command does; options in, exit status out."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import verify
from verify.errors import SubjectError

if TYPE_CHECKING:
    from verify.records import Defect, Verdict
    from verify.verifier import Verifier

STATUS = {"lossless": 0, "lossy": 1, "inconclusive": 2}
OPTIONS = {
    "discrete": ("vocab", "draft_length"),
    "gaussian": ("dim", "covariance", "until", "seconds"),
    "decoder": ("vocab", "length"),
    "sampler": ("target", "epsilon", "metric", "until", "seconds"),
}


def run_list(options: argparse.Namespace) -> int:
    """Print the catalogue, the scenarios, the saboteurs, the controls or the adapters."""
    if options.upstream:
        from verify.upstream import rows as adapters

        _table(adapters())
        return 0
    if options.scenarios:
        from verify.scenarios import scenarios

        pairs = [(name, item.vocab, item.draft_length) for name, item in scenarios().items()]
        _table([("scenario", "vocabulary", "draft length"), *pairs])
        return 0
    from verify.verifier import catalog

    if options.saboteurs:
        _table([("name", "bias on A", "bias on B", "checks that see it", "reference"), *_defects()])
        return 0
    claims = {name: kind.claim for name, kind in catalog("controls" if options.controls else "verifiers").items()}
    rows = [
        (name, "exact" if claim.exact else "lossy", claim.level, claim.laws, claim.reference)
        for name, claim in claims.items()
    ]
    _table([("name", "claim", "level", "laws", "reference"), *rows])
    return 0


def _defects() -> Iterator[tuple[str, ...]]:
    """The planted defects; a file without a Defect has said nothing of its bias."""
    from verify.verifier import catalog

    for name, kind in catalog("saboteurs").items():
        defect: Defect | None = getattr(kind, "defect", None)
        sizes = (
            (f"{defect.bias_a:.3g}", f"{defect.bias_b:.3g}", ", ".join(defect.caught_by)) if defect else ("", "", "")
        )
        yield name, *sizes, kind.claim.reference


def _table(rows: Sequence[Sequence[object]]) -> None:
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def run_check(options: argparse.Namespace) -> int:
    """Judge one function; the status is the verdict's."""
    if options.upstream:
        from verify.upstream import spaces

        options.space = options.space or spaces(options.upstream)[0]
    elif options.source is not None or options.subject is None:
        what = "--source needs" if options.source else "the following arguments are required: FILE.py::NAME or"
        raise SubjectError(f"{what} --upstream NAME; specproof list --upstream lists the names")
    options.space = options.space or "discrete"
    every = {name: getattr(options, name) for names in OPTIONS.values() for name in names}
    given = {name: value for name, value in every.items() if value is not None}
    for name in given:
        if name not in OPTIONS[options.space]:
            if name in ("until", "seconds"):
                raise SubjectError(
                    f"--{name} has no meaning with --space {options.space}, where every branch is enumerated and the "
                    "verdict is exact already; leave it out"
                )
            flag, space = "--" + name.replace("_", "-"), options.space
            raise SubjectError(f"{flag} has no meaning with --space {space}; leave it out, or choose another space")
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
    verdict = _judge(options, {**given, "budget": options.budget, "seed": options.seed})
    print(verdict.to_json(indent=2) if options.json else verdict, flush=True)
    if options.report is not None:
        from verify.report.pages import html_page
        from verify.report.provenance import provenance
        from verify.report.store import Results

        named = ["--upstream", options.upstream, "--source", str(options.source)] if options.upstream else []
        words = ["specproof", "check", *(named or [options.subject]), "--space", options.space]
        for name, value in {**given, "budget": options.budget, "seed": options.seed}.items():
            words += ["--" + name.replace("_", "-"), str(value)]
        page = html_page(Results((verdict,), provenance(shlex.join(words), options.seed)))
        options.report.write_text(page, encoding="utf-8")
    return STATUS[verdict.status]


def _judge(options: argparse.Namespace, arguments: dict[str, Any]) -> Verdict:
    _one_thread()
    from verify.judge import check_decoder, check_verifier
    from verify.loader import describe, load

    notes: tuple[str, ...] = ()
    with _stdout_is_stderr():
        try:
            if options.upstream:
                from verify.upstream import loaded

                function, head, name, notes = loaded(options.upstream, options.source, options.space)
            else:
                function, name = load(options.subject), options.subject
                head = f"from verify.loader import load\nfn = load({options.subject!r})\n"
            if options.space == "sampler":
                if "target" not in arguments:
                    raise SubjectError("--space sampler needs --target FILE.py::NAME: what the draws should follow")
                arguments = {**arguments, "target": load(arguments["target"], objects=True)}
                if arguments.get("metric") == "any":
                    arguments["metric"] = None
                from verify.judge import check_sampler

                verdict = check_sampler(function, **arguments)
            elif options.space == "decoder":
                verdict = check_decoder(function, **arguments)
            else:
                verdict = check_verifier(function, space=options.space, **arguments)
        except SubjectError:
            raise
        except SystemExit:
            raise SubjectError("the function called sys.exit(); return the emitted tokens instead") from None
        except Exception as error:
            # Python's own status for this is 1, which here would read as `lossy`.
            if os.environ.get("SPECPROOF_DEBUG"):
                raise
            raise SubjectError(f"no verdict: {describe(error)}; SPECPROOF_DEBUG=1 shows where from") from error
    case = verdict.counterexample
    if case is not None and case.snippet:
        verdict = replace(verdict, counterexample=replace(case, snippet=head + case.snippet))
    return replace(verdict, subject=name, notes=(*verdict.notes, *notes))


def _one_thread() -> None:
    """Sums in another order differ in their last digits: with one thread a rerun is the same to the last."""
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def _stdout_is_stderr() -> Iterator[None]:
    """Sends to stderr what a stranger's code prints, also from C or from a child process."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        # What was printed to sys.__stdout__ itself may still be held there: it leaves before the door is opened again.
        if sys.__stdout__ is not None:
            sys.__stdout__.flush()
        os.dup2(kept, 1)
        os.close(kept)


def run_audit(options: argparse.Namespace) -> int:
    """Judge all there is, one line each as it is known; 0 if every verdict is as claimed or expected."""
    _one_thread()
    from verify.report.pages import write_report
    from verify.report.provenance import provenance
    from verify.report.store import Results
    from verify.report.words import banner, bias

    options.output.mkdir(parents=True, exist_ok=True)
    found: dict[int, Verdict] = {}
    skipped: list[str] = []
    findings = options.output / "findings.jsonl"
    try:
        for place, verdict in _audited(findings, skipped):
            found[place] = verdict
            mark = " " if verdict.as_expected else "!"
            size, name = bias(verdict), verdict.subject
            print(f"{mark} {verdict.status:<12}  {verdict.evidence:<11}  {size:<10}  {name}", flush=True)
    except KeyboardInterrupt:
        print(f"interrupted: what was found until then is in {findings}", file=sys.stderr)
        raise
    verdicts = [verdict for _, verdict in sorted(found.items())]
    for reason in skipped:
        print("  skipped:", reason)
    origin = provenance("specproof audit", seed=0)
    write_report(verdicts, options.output, provenance=origin, skipped=skipped)
    results = Results(tuple(verdicts), origin, tuple(skipped))
    print(banner(results), f"See {options.output / 'index.html'}.")
    return 1 if results.surprises else 0


def _audited(findings: Path, skipped: list[str]) -> Iterator[tuple[int, Verdict]]:
    """Verdicts with their places in the list of subjects, as they are known: the fast ones first, which are enumerated.

    Each finding is in the file by then. Appends to ``skipped`` what it leaves out.
    """
    from verify.audit import audit, finite
    from verify.scenarios import scenarios
    from verify.spaces.continuous import judged
    from verify.verifier import catalog
    from verify.workers import Processes

    findings.write_text("")
    every, small = scenarios(), scenarios((2, 3))  # a defect that no small vocabulary shows is none of these
    folders = (("verifiers", "", every), ("saboteurs", "saboteurs/", small), ("controls", "controls/", small))
    subjects = [
        (prefix + name, kind, cases) for folder, prefix, cases in folders for name, kind in catalog(folder).items()
    ]
    with Processes() as executor:
        for at, (name, kind, cases) in enumerate(subjects):
            if finite(kind.claim):
                (verdict,) = audit({name: kind()}, cases, executor=executor, findings=findings)
                yield at, _claimed(kind, verdict)
        theirs = executor.submit(_transformers)  # the longest by far, so that it does not run alone at the end
        waiting = {
            at: executor.submit(judged, name, kind())
            for at, (name, kind, _) in enumerate(subjects)
            if not finite(kind.claim)
        }
        for at, future in waiting.items():
            yield at, _claimed(subjects[at][1], _kept(future.result(), findings))
        try:
            for at, verdict in enumerate(theirs.result(), len(subjects)):
                yield at, _kept(verdict, findings)
        except ImportError as error:
            skipped.append(f"transformers: {error}; pip install 'specproof[peers]' to judge its samplers")


def _transformers() -> list[Verdict]:
    from verify.upstream.transformers import audit_transformers

    return audit_transformers()


def _claimed(kind: type[Verifier], verdict: Verdict) -> Verdict:
    return replace(verdict, expected="lossless" if kind.claim.exact else "lossy")


def _kept(verdict: Verdict, findings: Path) -> Verdict:
    """The verdict, its findings appended to the file."""
    with findings.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in json.loads(verdict.to_json())["findings"])
    return verdict


def run_campaign(options: argparse.Namespace) -> int:
    """Judge what the file lacks, and say what is not as claimed; 0 if everything is. An interrupt loses nothing."""
    _one_thread()
    from verify.campaign import campaign, cells, surprises
    from verify.workers import Processes

    if options.seeds < 1 or options.workers < 1:
        raise SubjectError(f"--seeds {options.seeds} --workers {options.workers}: give whole numbers from 1")
    jobs = cells(options.budget, options.seeds, options.only or ())
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext() if options.workers == 1 else Processes(options.workers) as executor:
        try:
            rows = campaign(jobs, options.output, executor)
        except BrokenExecutor:
            raise SubjectError("a worker was killed, perhaps for memory; run again, with fewer --workers") from None
    sentences = surprises(jobs, rows)
    for sentence in sentences:
        print("!", sentence)
    said = f"{len(sentences)} not as claimed" if sentences else "every finding is as claimed"
    names = len({cell.name for cell in jobs})
    print(f"{len(rows)} cells of {names} functions, seeds 0 to {options.seeds - 1}: {said}. See {options.output}.")
    return 1 if sentences else 0


def run_guide(options: argparse.Namespace) -> int:
    """Print a guide, or the list of them."""
    guides = {path.stem: path for path in sorted((Path(__file__).parent / "guides").glob("*.md"))}
    if options.name is None:
        _table([(name, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")) for name, path in guides.items()])
        return 0
    if options.name not in guides:
        raise SubjectError(f"there is no guide {options.name!r}; there are {', '.join(guides)}")
    print(guides[options.name].read_text(encoding="utf-8"), end="")
    return 0


def run_report(options: argparse.Namespace) -> int:
    """Make the pages again from verdicts.json."""
    from verify.report.pages import write_report
    from verify.report.store import load

    results = load(options.output / "verdicts.json")
    paths = write_report(results.verdicts, options.output, provenance=results.provenance, skipped=results.skipped)
    print(*paths, sep="\n")
    return 0


def run_study(options: argparse.Namespace) -> int:
    """Compute one study or all of them, and print the files written."""
    _one_thread()
    from verify.report.provenance import provenance
    from verify.study import chosen, studies, write

    names = [options.name] if options.name else list(studies())
    for place, name in enumerate(names, 1):
        if len(names) > 1:
            print(f"{name}, {place} of {len(names)}", file=sys.stderr, flush=True)
        found = chosen(name)(options.budget)
        origin = provenance(f"specproof study {name} --budget {options.budget}", seed=0)
        print(*write(found, name, options.output, origin), sep="\n", flush=True)
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Train one thing that ships, or all of them, and print the files written. Killed, it goes on where it was."""
    _one_thread()
    from distributions.shipped import made, names

    if options.name is not None and options.name not in names():
        raise SubjectError(f"nothing that ships is called {options.name!r}; there are {', '.join(names())}")
    for name in [options.name] if options.name else names():
        for file in made(name, options.seed, options.output, _bar, options.predicts):
            print(file, flush=True)
    return 0


def _bar(label: str) -> Callable[[range], Iterator[int]]:
    from verify.progress import track

    return partial(track, label=label)


def run_doctor(options: argparse.Namespace) -> int:
    """Show where the packages come from; 1, and a warning, if any comes from elsewhere than this program."""
    import platform
    from importlib.metadata import packages_distributions

    import distributions
    from verify.report.provenance import versions

    home = Path(__file__).resolve().parents[1]
    rows: list[tuple[str, str, object]] = []
    warnings = []
    for package in (verify, distributions):
        path = Path(package.__file__ or "").resolve()
        rows.append((package.__name__, getattr(package, "__version__", "unknown"), path))
        if path.parent.parent != home:
            warnings.append(f"{package.__name__} does not come from {home}; uninstall the package that brings it")
    for name, owners in packages_distributions().items():
        others = ", ".join(sorted(set(owners) - {"specproof"}))
        if name in ("verify", "distributions") and others:
            warnings.append(f"{name} is brought by {others} too; pip uninstall {others}, then install specproof again")
    rows.append(("python", platform.python_version(), sys.executable))
    rows += [(name, found, "") for name, found in versions().items()]
    _table(rows)
    for warning in warnings:
        print("warning:", warning, file=sys.stderr)
    return 1 if warnings else 0
