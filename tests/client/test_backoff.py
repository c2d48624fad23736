"""How long the client waits."""

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from exposr_tx.client.backoff import LONGEST, SHORTEST, Backoff


class Highest(Random):
    """Draws the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


class BackoffTests(SynchronousTestCase):
    """Backoff."""

    def test_bound_doubles_to_the_longest(self) -> None:
        """Attempts get rarer, down to one in fifteen seconds."""
        backoff = Backoff(Highest())
        waits = [backoff.next() for _ in range(10)]
        self.assertEqual(waits[:4], [0.1, 0.2, 0.4, 0.8])
        self.assertEqual(waits[-1], LONGEST)

    def test_full_jitter(self) -> None:
        """Waits are spread over the whole range, so that clients do not come back together."""
        waits = []
        for seed in range(200):
            backoff = Backoff(Random(seed))
            for _ in range(8):
                wait = backoff.next()
            waits.append(wait)
        self.assertLess(min(waits), 1)
        self.assertGreater(max(waits), 12)

    def test_stable_connection_resets(self) -> None:
        """After ten good seconds the next loss is answered fast again."""
        backoff = Backoff(Highest())
        for _ in range(5):
            backoff.next()
        backoff.lasted(9.9)
        self.assertGreater(backoff.next(), SHORTEST)
        backoff.lasted(10)
        self.assertEqual(backoff.next(), SHORTEST)
