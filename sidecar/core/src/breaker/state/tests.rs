use proptest::prelude::*;

use super::*;

const TIMING: Timing = Timing { open: Duration::from_mins(1), probes: 2, consecutive_failures: Some(3) };

fn second(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000_000)
}

fn fail(state: &State, now: Tick) -> Option<Moved> {
    let permit = state.admit(now, TIMING).unwrap();
    state.settle(now, TIMING, permit, Verdict::Failure)
}

fn opened() -> State {
    let state = State::new();
    for _ in 0..3 {
        fail(&state, second(1));
    }
    state
}

#[test]
fn the_last_of_the_failures_in_a_row_opens_it() {
    let state = State::new();
    assert_eq!(fail(&state, second(1)), None);
    assert_eq!(fail(&state, second(1)), None);
    let permit = state.admit(second(1), TIMING).unwrap();
    state.settle(second(1), TIMING, permit, Verdict::Success);
    assert_eq!(state.consecutive_failures(), 0, "a success begins anew");
    assert_eq!((fail(&state, second(1)), fail(&state, second(1))), (None, None));
    let moved = fail(&state, second(1)).unwrap();
    assert_eq!((moved.from, moved.to), (BreakerState::Closed, BreakerState::Open));
}

#[test]
fn it_half_opens_when_its_time_is_over_and_not_before() {
    let state = opened();
    assert_eq!(state.admit(second(1), TIMING), Err(Denied::Open(Duration::from_mins(1))));
    let before = Tick::from_nanos(second(61).as_nanos() - 1);
    assert_eq!(state.admit(before, TIMING), Err(Denied::Open(Duration::from_nanos(1))));
    assert!(state.admit(second(61), TIMING).is_ok());
    assert_eq!(state.state(), BreakerState::HalfOpen);
}

#[test]
fn no_more_probes_are_out_than_allowed_and_those_without_a_verdict_come_back() {
    let state = opened();
    let one = state.admit(second(61), TIMING).unwrap();
    let two = state.admit(second(61), TIMING).unwrap();
    assert_eq!(state.admit(second(61), TIMING), Err(Denied::ProbesOut));
    state.settle(second(61), TIMING, one, Verdict::None);
    let three = state.admit(second(61), TIMING).unwrap();
    assert_eq!(state.settle(second(61), TIMING, two, Verdict::Success), None);
    assert_eq!(state.admit(second(61), TIMING), Err(Denied::ProbesOut), "one succeeded and one is out");
    assert_eq!(state.settle(second(61), TIMING, three, Verdict::Success).unwrap().to, BreakerState::Closed);
}

#[test]
fn one_failed_probe_reopens_it_for_the_whole_time() {
    let state = opened();
    let probe = state.admit(second(61), TIMING).unwrap();
    assert_eq!(state.settle(second(62), TIMING, probe, Verdict::Failure).unwrap().to, BreakerState::Open);
    assert_eq!(state.half_opens_in(second(62)), Some(Duration::from_mins(1)));
}

#[test]
fn a_call_from_before_it_opened_neither_closes_nor_reopens_it() {
    let state = State::new();
    let early = state.admit(second(1), TIMING).unwrap();
    for _ in 0..3 {
        fail(&state, second(1));
    }
    state.admit(second(61), TIMING).unwrap();
    for verdict in [Verdict::Success, Verdict::Failure, Verdict::None] {
        assert_eq!(state.settle(second(61), TIMING, early, verdict), None);
    }
    assert_eq!(state.state(), BreakerState::HalfOpen);
}

#[test]
fn fewer_probes_in_a_new_policy_do_not_leave_it_half_open_for_ever() {
    let state = opened();
    let five = Timing { probes: 5, ..TIMING };
    for _ in 0..3 {
        let probe = state.admit(second(61), five).unwrap();
        state.settle(second(61), five, probe, Verdict::Success);
    }
    assert!(state.admit(second(61), TIMING).is_ok());
    assert_eq!(state.state(), BreakerState::Closed);
}

#[test]
fn transitions_are_counted() {
    let state = opened();
    let probe = state.admit(second(61), TIMING).unwrap();
    state.settle(second(61), TIMING, probe, Verdict::Failure);
    let counts: Vec<u64> = state.transitions().iter().map(|(_, n)| *n).collect();
    assert_eq!(counts, [1, 1, 1, 0]);
}

fn word() -> impl Strategy<Value = Word> {
    let phase = prop_oneof![
        any::<u32>().prop_map(|failures| Phase::Closed { failures }),
        (0..=PAYLOAD).prop_map(|until| Phase::Open { until }),
        (0..=PROBES, 0..=PROBES).prop_map(|(out, succeeded)| Phase::HalfOpen { out, succeeded }),
    ];
    (any::<u16>(), phase).prop_map(|(generation, phase)| Word { generation, phase })
}

proptest! {
    #[test]
    fn a_packed_word_is_the_same_word(word in word()) {
        prop_assert_eq!(Word::unpack(word.pack()), word);
    }

    /// Law: whatever happens in whatever order, Open is never followed by Closed.
    #[test]
    fn open_is_never_followed_by_closed(
        steps in proptest::collection::vec((0u64..40, 0usize..8, 0u8..4), 1..200),
    ) {
        let state = State::new();
        let mut permits = Vec::new();
        let (mut now, mut last) = (1, BreakerState::Closed);
        for (gap, which, action) in steps {
            now += gap;
            let verdict = [Verdict::Success, Verdict::Failure, Verdict::None].get(action as usize);
            match verdict {
                Some(verdict) if !permits.is_empty() => {
                    let permit = permits.swap_remove(which % permits.len());
                    state.settle(second(now), TIMING, permit, *verdict);
                }
                _ => permits.extend(state.admit(second(now), TIMING)),
            }
            let present = state.state();
            prop_assert!(!(last == BreakerState::Open && present == BreakerState::Closed));
            last = present;
        }
    }
}
