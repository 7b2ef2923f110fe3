"""The slips of ``mutants.py`` can be planted: their texts are those of the code."""

from collections import Counter

from mutants import MUTANTS, misfits, tests_of


def test_every_mutant_can_be_planted_and_has_tests():
    assert misfits(MUTANTS) == []
    assert all(tests_of(mutant) for mutant in MUTANTS)
    assert not [name for name, count in Counter(m.name for m in MUTANTS).items() if count > 1]
