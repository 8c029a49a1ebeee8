"""Two Gaussians in the standard coordinates of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distributions.gaussian import FullGaussian, Gaussian
from distributions.law import Law, at


def log_volume(law: Law) -> Tensor:
    """log |S|^(1/2) of a Gaussian's covariance S, batch-wise. Raises TypeError for a law of another kind."""
    if isinstance(law, Gaussian):
        return law.scale.log().sum(-1)
    if isinstance(law, FullGaussian):
        return law.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    raise TypeError(f"a {type(law).__name__} has no one covariance; give Gaussian laws")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two Gaussians in the draft's standard coordinates w: the draft N(0, I), the target N(shift, A A^T).

    A point has a draft's noise w and a target's noise v, w = shift + A v. ``shift`` (*batch, d), ``stretch`` A, its
    diagonal (*batch, d) where both laws are diagonal, else (*batch, d, d), lower triangular.
    """

    shift: Tensor
    stretch: Tensor

    @staticmethod
    def of(target: Law, draft: Law) -> Pair:
        """Raises TypeError for laws that are not Gaussian."""
        if not isinstance(target, (Gaussian, FullGaussian)) or not isinstance(draft, (Gaussian, FullGaussian)):
            raise TypeError(
                f"shared noise needs Gaussian steps and got {type(target).__name__} and {type(draft).__name__}; "
                "use a rule that needs densities only"
            )
        apart = target.mean - draft.mean
        if isinstance(target, Gaussian) and isinstance(draft, Gaussian):
            return Pair(apart / draft.scale, target.scale / draft.scale)
        factor = draft.factor
        shift = torch.linalg.solve_triangular(factor, apart.unsqueeze(-1), upper=False).squeeze(-1)
        if torch.equal(factor, target.factor):  # a solver would round, and equal covariances are a case of their own
            return Pair(shift, torch.eye(factor.shape[-1]).to(factor).expand(factor.shape))
        return Pair(shift, torch.linalg.solve_triangular(factor, target.factor, upper=False))

    @property
    def full(self) -> bool:
        return self.stretch.dim() > self.shift.dim()

    def one_covariance(self) -> Tensor:
        """Whether the covariances are equal (*batch,)."""
        size = self.stretch.shape[-1]
        equal = self.stretch == (torch.eye(size).to(self.stretch) if self.full else 1.0)
        return equal.flatten(-2).all(-1) if self.full else equal.all(-1)

    def noise(self, value: Tensor, draft: Law) -> Tensor:
        """w of each value."""
        assert isinstance(draft, (Gaussian, FullGaussian))
        centred = value - draft.mean
        if isinstance(draft, Gaussian):
            return centred / draft.scale
        white: Tensor = torch.linalg.solve_triangular(draft.scale_tril, centred.unsqueeze(-1), upper=False)
        return white.squeeze(-1)

    def point(self, target: Law, noise: Tensor) -> Tensor:
        """The value whose target's noise is ``noise``."""
        assert isinstance(target, (Gaussian, FullGaussian))
        if isinstance(target, Gaussian):
            return target.mean + target.scale * noise
        return target.mean + (target.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)

    def inside(self, noise: Tensor) -> Tensor:
        """v of the point whose draft's noise is ``noise``."""
        apart = noise - self.shift
        if not self.full:
            return apart / self.stretch
        white: Tensor = torch.linalg.solve_triangular(self.stretch, apart.unsqueeze(-1), upper=False)
        return white.squeeze(-1)

    def outside(self, noise: Tensor) -> Tensor:
        """w of the point whose target's noise is ``noise``."""
        if not self.full:
            return self.shift + self.stretch * noise
        return self.shift + (self.stretch @ noise.unsqueeze(-1)).squeeze(-1)

    def gain(self, inside: Tensor, outside: Tensor) -> Tensor:
        """log target - log draft of points, from both noises: (w^2 - v^2) / 2 - log |A|."""
        volume = self.stretch.diagonal(dim1=-2, dim2=-1) if self.full else self.stretch
        return 0.5 * (outside.square() - inside.square()).sum(-1) - volume.log().sum(-1)

    def mirror(self, noise: Tensor) -> Tensor:
        """H: across the plane orthogonal to the shift; the identity where there is none."""
        square = self.shift.square().sum(-1, keepdim=True)
        along = (noise * self.shift).sum(-1, keepdim=True)
        return noise - self.shift * torch.where(square > 0, 2 * along / square, 0.0)

    def excess(self, inside: Tensor) -> Tensor:
        """(1 - q / p)+ = r / p of the points whose target's noise is ``inside``."""
        return -torch.expm1((-self.gain(inside, self.outside(inside))).clamp(max=0))

    def missing(self, inside: Tensor) -> Tensor:
        """(r - r0)+ / p: the probability with which thinning keeps a draw of the target."""
        before = self.mirror(inside)  # the draft's noise of T^-1 z
        lost = -torch.expm1(self.gain(self.inside(before), before).clamp(max=0))
        return (self.excess(inside) - lost).clamp(min=0)

    def __getitem__(self, index: Any) -> Pair:
        return Pair(at(self.shift, index, 1), at(self.stretch, index, 2 if self.full else 1))
