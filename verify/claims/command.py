"""``specproof claims``: options in, exit status out."""

from __future__ import annotations

import argparse
import json


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``specproof claims``."""
    parser.add_argument("table", nargs="?", metavar="TABLE.csv", help="a file, or a shipped table; default: list these")
    parser.add_argument("--cost", type=float, metavar="C", help="drafter step / target step, where no column says")
    parser.add_argument("--prefilled", type=float, metavar="F", help="share of tokens before the first draft")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, and nothing else")


def run_claims(options: argparse.Namespace) -> int:
    """Print the audit of one table, or the list of those shipped; always 0, as figures alone convict nobody."""
    from verify.claims.audit import audit
    from verify.claims.table import figures, find, remarks, shipped

    if options.table is None:
        tables = {name: len(figures(path)) for name, path in shipped().items()}
        if options.json:
            print(json.dumps({"tables": {name: str(shipped()[name]) for name in tables}}, indent=2))
        else:
            width = max(map(len, tables))
            print(*(f"{name.ljust(width)}  {count} figures" for name, count in tables.items()), sep="\n")
        return 0
    path = find(options.table)
    found = audit(path.name, figures(path), options.cost, options.prefilled)
    if options.json:
        print(json.dumps({**found.data(), "remarks": remarks(path)}, indent=2), flush=True)
    else:
        print(*(f"note: {remark}" for remark in remarks(path)), found, sep="\n", flush=True)
    return 0
