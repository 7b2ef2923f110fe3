"""The slips of ``mutants.py`` can be planted: their texts are those of the code."""

from collections import Counter

import mutants


def test_every_mutant_can_be_planted_and_has_tests():
    assert mutants.misfits(mutants.MUTANTS) == []
    assert all(mutants.tests_of(mutant) for mutant in mutants.MUTANTS)
    assert not [
        name for name, count in Counter(m.name for m in mutants.MUTANTS).items() if count > 1
    ]
