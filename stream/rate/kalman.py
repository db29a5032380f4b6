"""Two coefficients that are learned while they change: a Kalman filter small enough to read."""

from __future__ import annotations

from dataclasses import dataclass

SURPRISE = 9.0  # squared standard deviations: beyond, the coefficients have changed at once
NOISE_GAIN = 0.05


@dataclass(slots=True)
class LinearModel:
    """y = a·p + b·q, measured with noise while `a` and `b` drift.

    Noise is averaged, a jump is followed at once: a measurement far off what was expected makes the coefficients as
    uncertain as it takes to explain it, `a` by all of it and `b` by `share_b` of it.
    """

    a: float
    b: float
    var_a: float
    var_b: float
    noise: float  # variance of y; follows the measurements
    noise_range: tuple[float, float]
    share_b: float = 0.0
    cov: float = 0.0

    def predict(self, p: float, q: float) -> float:
        """The y that is expected."""
        return self.a * p + self.b * q

    def drift(self, var_a: float, var_b: float) -> None:
        """The coefficients may have moved since the last measurement, by these variances."""
        self.var_a += var_a
        self.var_b += var_b

    def learn(self, p: float, q: float, y: float) -> None:
        """Take a measurement; p is not zero."""
        error = y - self.predict(p, q)
        spread = self._spread(p, q)
        if error * error > SURPRISE * spread:
            self.var_a += (error / p) ** 2
            self.var_b += (self.share_b * error) ** 2
            typical = SURPRISE * self.noise
            spread = self._spread(p, q)
        else:
            typical = error * error * self.noise / spread
        gain_a = (self.var_a * p + self.cov * q) / spread
        gain_b = (self.cov * p + self.var_b * q) / spread
        self.a += gain_a * error
        self.b += gain_b * error
        # Joseph's form of the update, which rounding cannot make negative.
        aa, ab, ba, bb = 1 - gain_a * p, -gain_a * q, -gain_b * p, 1 - gain_b * q
        var_a, cov, var_b = self.var_a, self.cov, self.var_b
        self.var_a = aa * aa * var_a + 2 * aa * ab * cov + ab * ab * var_b + gain_a * gain_a * self.noise
        self.var_b = ba * ba * var_a + 2 * ba * bb * cov + bb * bb * var_b + gain_b * gain_b * self.noise
        self.cov = aa * (ba * var_a + bb * cov) + ab * (ba * cov + bb * var_b) + gain_a * gain_b * self.noise
        low, high = self.noise_range
        self.noise = min(high, max(low, self.noise + NOISE_GAIN * (typical - self.noise)))

    def _spread(self, p: float, q: float) -> float:
        """Variance of y around what is expected."""
        return p * p * self.var_a + 2 * p * q * self.cov + q * q * self.var_b + self.noise
