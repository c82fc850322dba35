"""How many examples hypothesis tries: a few, always the same, in `make test`; as many as wanted in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

QUICK = 1_500  # examples of all tests together, in `make test`
TOTAL = int(os.environ.get("FUZZ_EXAMPLES") or 0)  # set by `make fuzz`

run = 0  # examples so far


def examples(share: float) -> settings:
    """The settings of a test.

    Args:
        share: Which part of all the examples it gets; those of all tests add up to 1.
    """
    return settings(
        max_examples=max(10, round(share * (TOTAL or QUICK))),
        # In CI and in `make test` a red run is red again; `make fuzz` elsewhere looks at something new each time.
        derandomize=not TOTAL or bool(os.environ.get("CI")),
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


def count() -> None:
    """One more example was tried."""
    global run
    run += 1
