from __future__ import annotations

import random

import pytest

from stream.rate.kalman import LinearModel


def make_model(**changes) -> LinearModel:
    values = {"a": 0.0, "b": 0.0, "var_a": 100.0, "var_b": 100.0, "noise": 1.0, "noise_range": (0.01, 100.0)}
    return LinearModel(**values | changes)


def feed(model: LinearModel, a: float, b: float, count: int = 300, noise: float = 0.5) -> None:
    numbers = random.Random(count)
    for _ in range(count):
        p = numbers.uniform(1, 5)
        model.drift(1e-4, 1e-4)
        model.learn(p, 1.0, a * p + b + numbers.gauss(0, noise))


@pytest.mark.parametrize(("a", "b"), [(3.0, -2.0), (-1.0, 40.0), (0.0, 0.0)])
def test_finds_both_coefficients(a, b):
    model = make_model()
    feed(model, a, b)
    assert (model.a, model.b) == (pytest.approx(a, abs=0.2), pytest.approx(b, abs=0.5))
    assert model.predict(4, 1) == pytest.approx(4 * a + b, abs=0.4)


def test_learns_the_noise():
    quiet, loud = make_model(), make_model()
    feed(quiet, 3, 1, noise=0.2)
    feed(loud, 3, 1, noise=4.0)
    assert quiet.noise < 0.2
    assert 8 < loud.noise < 32
    feed(loud, 3, 1, noise=1000.0)
    assert loud.noise == pytest.approx(100.0, rel=0.2)


def test_follows_a_jump_at_once_and_noise_hardly():
    model = make_model()
    feed(model, 3, 1)
    model.learn(2, 1, 2 * 3 + 1 + 1.0)
    assert model.predict(2, 1) == pytest.approx(7, abs=0.3)
    model.learn(2, 1, 2 * 30 + 1)
    assert model.predict(2, 1) == pytest.approx(61, abs=1)
    assert model.a > 29


def test_a_share_of_a_jump_may_be_the_other_coefficients():
    model = make_model(share_b=1.0)
    feed(model, 3, 1)
    model.learn(1, 1, 3 + 41)
    assert (model.a, model.b) == (pytest.approx(23, abs=2), pytest.approx(21, abs=2))
    model.learn(4, 1, 4 * 3 + 41)  # which one it was, another p tells
    assert (model.a, model.b) == (pytest.approx(3, abs=2), pytest.approx(41, abs=4))


def test_the_variances_stay_variances():
    model = make_model(share_b=0.3)
    numbers = random.Random(0)
    for _ in range(5000):
        model.drift(numbers.expovariate(1e3), numbers.expovariate(1e3))
        model.learn(10 ** numbers.uniform(-3, 3), numbers.choice([0.0, 1.0]), numbers.gauss(0, 10) ** 3)
        assert model.var_a >= 0
        assert model.var_b >= 0
        assert model.cov**2 <= model.var_a * model.var_b * (1 + 1e-6) + 1e-12
