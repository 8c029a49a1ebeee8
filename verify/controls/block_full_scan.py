"""Block verification that looks at every coin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from verify.records import Claim
from verify.verifiers.block import Block


@dataclass(frozen=True)
class BlockFullScan(Block):
    """A later coin that succeeds keeps a prefix whose earlier coins failed: so the rule is meant."""

    claim: ClassVar[Claim] = Claim(
        exact=True,
        laws="categorical",
        reference="vllm-project/vllm-ascend #11985",
        note=(
            "an automatic review called it critical that the scan goes on after a failure (#11985); stopping "
            "there is the defect, block_early_stop"
        ),
    )
