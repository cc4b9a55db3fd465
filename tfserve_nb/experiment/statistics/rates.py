"""How much more often B fails than A: difference of two shares, always valid, and exact for rare failures.

For one arm with s failures among n requests, the mixture likelihood ratio against "the share is p" is

    evidence(p) = Beta(s + 1/2, n - s + 1/2) / Beta(1/2, 1/2) / (p^s (1 - p)^(n - s)),

a martingale under p. Both arms are independent, so for "B's share is A's plus d" the product, at the p where it is
smallest, is at most the product at the true p: the set of d where that minimum stays below `1 / alpha` covers the true
difference at all times with probability 1 - alpha; no approximation, also with no failure at all.

Assumption: requests fail independently, given their arm. Failures of one client do not: at most `MOST_OF_KEY` failures
of one key are counted, so that a client that sends nonsense, and is kept with B, does not roll B back.

Sources: H. Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Stat. 41 (1970);
the Beta mixture with Jeffreys' prior: R. Krichevsky, V. Trofimov, IEEE Trans. Inf. Theory 27 (1981); minimising over
the nuisance parameter: R. Turner, P. Gruenwald, "Exact anytime-valid confidence intervals for contingency tables and
beyond", Statistics & Probability Letters 198 (2023).

Thread: any; pure functions.
"""

from __future__ import annotations

import math

from ..state import Estimate

MOST_OF_KEY = 3
TINY = 1e-12
STEPS = 26


def difference(failed_a: int, num_a: int, failed_b: int, num_b: int, alpha: float) -> Estimate | None:
    """B's share of failures minus A's, with its always-valid interval; None while one arm has no request.

    Args:
        failed_a: failures of A.
        num_a: its requests.
        failed_b: failures of B.
        num_b: its requests.
        alpha: probability that the interval ever misses the truth.
    """
    if not num_a or not num_b:
        return None
    table = (failed_a, num_a, failed_b, num_b)
    mixture = _log_mixture(failed_a, num_a) + _log_mixture(failed_b, num_b)
    bound = -math.log(alpha)
    value = failed_b / num_b - failed_a / num_a
    evidence = mixture - _best_log_likelihood(table, 0.0)
    ends = [_end(table, mixture - bound, value, limit) for limit in (-1.0, 1.0)]
    return Estimate(value, ends[0], ends[1], math.exp(-max(0.0, evidence)), num_a + num_b)


def _log_mixture(failed: int, num: int) -> float:
    """Logarithm of the likelihood, averaged with Jeffreys' prior."""
    return math.lgamma(failed + 0.5) + math.lgamma(num - failed + 0.5) - math.lgamma(num + 1) - math.log(math.pi)


def _end(table: tuple[int, int, int, int], floor: float, value: float, limit: float) -> float:
    """The difference between `value` and `limit` at which the best likelihood falls to `floor`."""
    inside, outside = value, limit
    for _ in range(STEPS):
        middle = (inside + outside) / 2
        if _best_log_likelihood(table, middle) > floor:
            inside = middle
        else:
            outside = middle
    return outside


def _best_log_likelihood(table: tuple[int, int, int, int], difference: float) -> float:
    """The largest log likelihood of shares p and p + difference; it is concave in p, so its slope is bisected."""
    failed_a, num_a, failed_b, num_b = table
    low, high = max(0.0, -difference) + TINY, min(1.0, 1.0 - difference) - TINY
    if low >= high:
        return -math.inf
    if not difference:
        low = high = min(max((failed_a + failed_b) / (num_a + num_b), low), high)
    for _ in range(STEPS if difference else 0):
        p = (low + high) / 2
        q = p + difference
        slope = failed_a / p - (num_a - failed_a) / (1 - p) + failed_b / q - (num_b - failed_b) / (1 - q)
        if slope > 0:
            low = p
        else:
            high = p
    p = (low + high) / 2
    return _log_likelihood(failed_a, num_a, p) + _log_likelihood(failed_b, num_b, p + difference)


def _log_likelihood(failed: int, num: int, p: float) -> float:
    p = min(max(p, TINY), 1 - TINY)
    return failed * math.log(p) + (num - failed) * math.log1p(-p)


def binomial_tail(num_hits: int, num: int, p: float) -> float:
    """P(X >= num_hits) for a binomial X, exact; 1 when there are no more hits than expected."""
    if num_hits <= num * p or not num_hits:
        return 1.0
    from scipy.special import bdtrc

    return float(bdtrc(num_hits - 1, num, p))
