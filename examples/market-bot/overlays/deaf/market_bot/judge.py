"""What /health says, from what was observed."""


def judge(
    started: bool, poll_age: float | None, poll_age_limit: float, postgres: str, redis: str
) -> tuple[str, list[str]]:
    """`degraded` or `healthy`, and the reasons: the process answers, so it must be well."""
    reasons = [f"{name}: {state}" for name, state in (("postgres", postgres), ("redis", redis)) if state != "ok"]
    return ("degraded" if reasons else "healthy"), reasons
