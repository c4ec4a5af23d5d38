"""How sure a difference is."""

from __future__ import annotations

import numpy as np
import pytest

from MedSAMSlicerLib.evaluation.bootstrap import paired_difference, signed


def test_the_interval_is_that_of_the_mean_of_many_patients():
    random = np.random.default_rng(5)
    before = random.uniform(0.5, 0.9, 400)
    after = before + random.normal(0.02, 0.1, 400)
    found = paired_difference(before, after)
    error = (after - before).std(ddof=1) / 20
    assert found.mean == pytest.approx((after - before).mean())
    assert found.lower == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.upper == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)
    assert found.count == 400


def test_patients_are_compared_with_themselves():
    before = [0.2, 0.9, 0.5, 0.7, 0.3]
    found = paired_difference(before, [value + 0.01 for value in before])
    assert (found.lower, found.mean, found.upper) == pytest.approx((0.01, 0.01, 0.01))


def test_the_interval_holds_the_truth_as_often_as_it_claims():
    random = np.random.default_rng(11)
    held = 0
    for seed in range(200):
        found = paired_difference(np.zeros(30), random.normal(0.1, 0.2, 30), seed=seed)
        held += found.lower <= 0.1 <= found.upper
    assert 180 <= held <= 198


def test_the_same_seed_gives_the_same_interval():
    before, after = np.random.default_rng(1).uniform(0, 1, (2, 8))
    assert paired_difference(before, after) == paired_difference(before, after)
    assert paired_difference(before, after) != paired_difference(before, after, seed=1)


def test_figures_that_are_no_pairs_are_refused():
    for before, after in (([], []), ([0.5], [])):
        with pytest.raises(ValueError, match="give both for every patient"):
            paired_difference(before, after)


def test_a_difference_is_written_with_its_sign():
    assert [signed(value) for value in (0.0123, -0.5, 0.0004, -0.0004)] == ["+0.012", "−0.500", "0.000", "0.000"]
    assert str(paired_difference([0.5, 0.5], [0.6, 0.6])) == "+0.100 (95 % interval +0.100 to +0.100)"
    # An interval without width would look like certainty.
    assert str(paired_difference([0.5], [0.6])) == "+0.100 (one patient, from whom nothing follows for others)"
