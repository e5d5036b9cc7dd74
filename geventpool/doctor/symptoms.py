"""What people see, and by which words: the entrance for those who do not know which check to ask."""

from __future__ import annotations

import re
from typing import Final

from ..errors import ConfigError

SYMPTOMS: Final = {
    "pool limit": r"queuepool|pool (limit|is full)|pooltimeout|overflow|timed? ?out",
    "gone away": r"gone away|lost connection|broken pipe|reset by peer|closed the conn|\b20(06|13|55)\b",
    "too many connections": r"too many|\b1040\b|53300|max_user|remaining connection slots",
    "memory": r"memory|\boom\b|leak",
    "slow": r"slow|latency|acqui|hang|block|wait|stuck",
    "deadlock": r"dead ?lock|\b1213\b|40p01|lock wait",
    "lost changes": r"read.?only|lost|another's|mixed|wrong (row|answer|result)",
}
"""Each with a pattern of the messages and words that mean it."""


def symptom_of(text: str) -> str:
    """The symptom that a user's words mean.

    Raises:
        ConfigError: they mean none of them.
    """
    if text in SYMPTOMS:
        return text
    for name, pattern in SYMPTOMS.items():
        if re.search(pattern, text, re.IGNORECASE):
            return name
    cure = (
        f"give an error's text, or one of {', '.join(SYMPTOMS)}; without it all checks run as well"
    )
    raise ConfigError("symptom", text, cure)
