"""Generalization bounds for selective state-space models, as numbers that can be audited.

The bounds most people want are re-exported here; `published`, `errata`, `comparison`,
`compression`, `curve` and `symbolic` are modules of their own.
"""

from bounds.capacity import covering_number as covering_number
from bounds.generalization import generalization_gap as generalization_gap
from bounds.generalization import rademacher_lower as rademacher_lower
from bounds.generalization import rademacher_upper as rademacher_upper
from bounds.lipschitz import lipschitz_constants as lipschitz_constants
from bounds.lipschitz import output_range as output_range
from bounds.losses import Loss as Loss
from bounds.losses import binary_cross_entropy as binary_cross_entropy
from bounds.losses import cross_entropy as cross_entropy
from bounds.losses import multiclass_margin as multiclass_margin
from bounds.losses import ramp as ramp
from bounds.result import Bound as Bound
from bounds.result import Source as Source
from bounds.result import Term as Term
from bounds.ssm import SelectiveSSMClass as SelectiveSSMClass
from bounds.stratification import stratify as stratify
