"""What /health says, from what was observed."""

from . import prices


def judge(
    started: bool, poll_age: float | None, poll_age_limit: float, postgres: str, redis: str
) -> tuple[str, list[str]]:
    """`starting`, `unhealthy` (Telegram isn't heard, or the prices are no good), `degraded` or `healthy`, and the reasons."""
    if not started:
        return "starting", ["has not asked Telegram for messages yet"]
    reasons = []
    if poll_age is None or poll_age > poll_age_limit:
        reasons.append(f"last successful poll {'never' if poll_age is None else f'{poll_age:.0f} s ago'}")
    if problem := prices.problem():
        reasons.append(problem)
    if reasons:
        return "unhealthy", reasons
    reasons = [f"{name}: {state}" for name, state in (("postgres", postgres), ("redis", redis)) if state != "ok"]
    return ("degraded" if reasons else "healthy"), reasons
