"""What differs between the releases of Hydra that are allowed."""

from typing import Any

import hydra

# Hydra 1.3 follows the defaults of 1.1 unless told otherwise; 1.4 has those of 1.3, and warns of being told.
DEFAULTS_OF_1_3: dict[str, Any] = (
    {} if tuple(map(int, hydra.__version__.split(".")[:2])) >= (1, 4) else {"version_base": "1.3"}
)
