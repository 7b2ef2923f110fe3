"""Which steps are taken in one call of the compiled loop."""

from hypothesis import given
from hypothesis import strategies as st

from lottery.training.length import Length


@given(
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 40),
    st.sets(st.integers(1, 60)).map(sorted),
    st.booleans(),
    st.integers(0, 59),
)
def test_calls_end_where_the_mask_changes(last, spe, per_call, changes, measures, first):
    length = Length(last, spe, per_call, changes, measures)
    chunks = list(length.chunks(first))
    steps = [s for c in chunks for s in range(c.first_step, c.first_step + c.steps)]
    assert steps == list(range(first, last))
    for chunk in chunks:
        end = chunk.first_step + chunk.steps
        assert chunk.steps <= per_call
        assert chunk.first_step // spe == (end - 1) // spe
        assert not any(chunk.first_step < c < end for c in changes)
        assert chunk.steps == 1 or not (measures and end in changes)
    assert len({c.steps for c in chunks}) <= per_call.bit_length() + 1
