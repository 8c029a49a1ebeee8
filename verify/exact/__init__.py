"""Exact laws of verifiers on finite models, by enumerating every draw: of one round, and of a decoded sequence."""

from verify.exact.chain import ChainLaw, exact_chain
from verify.exact.prefixes import conditionals, digits, encode
from verify.exact.rows import RoundLaw, exact_batch, exact_rows

__all__ = ["ChainLaw", "RoundLaw", "conditionals", "digits", "encode", "exact_batch", "exact_chain", "exact_rows"]
