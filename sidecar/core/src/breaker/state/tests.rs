use proptest::prelude::*;

use super::word::{PAYLOAD, PROBES};
use super::*;

const TIMING: Timing = Timing {
    open: Duration::from_mins(1),
    probes: 2,
    consecutive_failures: Some(3),
    ramp: Duration::ZERO,
    seed: 7,
};

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

const RAMPED: Timing = Timing { probes: 1, ramp: Duration::from_secs(6), ..TIMING };

fn in_ramp() -> State {
    let state = opened();
    let probe = state.admit(second(61), RAMPED).unwrap();
    state.settle(second(61), RAMPED, probe, Verdict::Success);
    state
}

/// The requests that pass of `n` evenly spread over the second from `at` on.
fn spread(state: &State, at: u64, n: u64) -> Vec<Option<Permit>> {
    let nanos = |i: u64| second(at).as_nanos() + i * 1_000_000_000 / n;
    (0..n).map(|i| state.admit(Tick::from_nanos(nanos(i)), RAMPED).ok()).collect()
}

#[test]
fn the_ramp_lets_a_tenth_then_a_quarter_then_a_half_pass_and_closes() {
    let state = in_ramp();
    for (at, expected) in [(61, 1000), (62, 1000), (63, 2500), (64, 2500), (65, 5000), (66, 5000)] {
        let passed = spread(&state, at, 10_000).into_iter().flatten().count();
        // Five standard deviations of that many draws.
        assert!(passed.abs_diff(expected) < 250, "{passed} of 10000 at {at} s");
        assert_eq!(state.state(), BreakerState::HalfOpen);
    }
    assert!((0..100).all(|_| state.admit(second(67), RAMPED).is_ok()));
    assert_eq!(state.state(), BreakerState::Closed);
}

#[test]
fn one_that_the_ramp_refuses_is_told_when_it_ends_and_so_are_all_others_of_its_instant() {
    let state = in_ramp();
    let at = (0..100).map(|i| second(61) + Duration::from_nanos(i));
    let told = |at| (0..100).map(move |_| at);
    for at in at {
        let left = RAMPED.ramp.saturating_sub(at.since(second(61)));
        let refused: Vec<_> = told(at).skip_while(|at| state.admit(*at, RAMPED).is_ok()).collect();
        assert!(refused.len() > 80, "a burst of one instant passes in part");
        assert!(refused.iter().all(|at| state.admit(*at, RAMPED) == Err(Denied::Ramp(left))));
    }
}

#[test]
fn no_client_that_takes_turns_with_others_is_always_or_never_let_pass() {
    let state = in_ramp();
    let mut passed = [0; 10];
    for (n, permit) in spread(&state, 61, 2000).into_iter().enumerate() {
        passed[n % 10] += usize::from(permit.is_some());
    }
    assert!(passed.iter().all(|n| (5..=40).contains(n)), "{passed:?}");
}

#[test]
fn breakers_of_other_seeds_let_other_requests_of_a_ramp_pass() {
    let passed = |seed| {
        let (state, timing) = (in_ramp(), Timing { seed, ..RAMPED });
        let at = (0..1000).map(|i| second(61) + Duration::from_millis(i));
        at.map(|at| state.admit(at, timing).is_ok()).collect::<Vec<_>>()
    };
    assert_ne!(passed(7), passed(8));
    assert_eq!(passed(7), passed(7));
}

#[test]
fn failures_in_the_ramp_open_it_again_and_calls_of_the_ramp_count_after_it() {
    let state = in_ramp();
    let permits: Vec<Permit> = spread(&state, 61, 100).into_iter().flatten().collect();
    state.settle(second(62), RAMPED, permits[0], Verdict::Failure);
    state.settle(second(62), RAMPED, permits[1], Verdict::Failure);
    state.tick(second(70), RAMPED);
    assert_eq!((state.state(), state.consecutive_failures()), (BreakerState::Closed, 2));
    let moved = state.settle(second(70), RAMPED, permits[2], Verdict::Failure).unwrap();
    assert_eq!((moved.from, moved.to), (BreakerState::Closed, BreakerState::Open));
    let again = in_ramp();
    let permits: Vec<Permit> = spread(&again, 61, 100).into_iter().flatten().collect();
    let moved: Vec<Moved> =
        permits.iter().filter_map(|p| again.settle(second(62), RAMPED, *p, Verdict::Failure)).collect();
    assert_eq!(moved, [Moved { from: BreakerState::HalfOpen, to: BreakerState::Open }]);
}

#[test]
fn a_probe_that_comes_back_in_the_ramp_has_no_say() {
    let state = opened();
    let two = Timing { probes: 2, ..RAMPED };
    let [one, other] = [(); 2].map(|()| state.admit(second(61), two).unwrap());
    state.settle(second(61), RAMPED, one, Verdict::Success);
    assert_eq!(state.settle(second(61), RAMPED, other, Verdict::Failure), None);
    assert_eq!(state.state(), BreakerState::HalfOpen);
}

#[test]
fn a_clock_that_stands_still_or_leaps_breaks_no_ramp() {
    let state = in_ramp();
    assert!((0..1000).filter(|_| state.admit(second(61), RAMPED).is_ok()).count() < 110);
    assert_eq!(state.state(), BreakerState::HalfOpen, "no time has passed");
    assert!(state.admit(Tick::from_nanos(u64::MAX), RAMPED).is_ok());
    assert_eq!(state.state(), BreakerState::Closed);
}

fn word() -> impl Strategy<Value = Word> {
    let phase = prop_oneof![
        any::<u32>().prop_map(|failures| Phase::Closed { failures }),
        (0..=PAYLOAD).prop_map(|until| Phase::Open { until }),
        (0..=PROBES, 0..=PROBES).prop_map(|(out, succeeded)| Phase::HalfOpen { out, succeeded }),
        any::<u32>().prop_map(|failures| Phase::Ramp { failures }),
    ];
    (any::<u16>(), phase).prop_map(|(generation, phase)| Word { generation, phase })
}

proptest! {
    #[test]
    fn a_packed_word_is_the_same_word(word in word()) {
        prop_assert_eq!(Word::unpack(word.pack()), word);
    }

    /// Law: requests that a ramp refuses, and those that it lets pass and a later rule refuses, leave its verdicts on
    /// all others as they would have been without them.
    #[test]
    fn a_refusal_in_the_ramp_leaves_every_later_verdict_as_it_was(
        arrivals in proptest::collection::vec((0u64..50_000_000, any::<bool>()), 1..300),
    ) {
        let (all, others) = (in_ramp(), in_ramp());
        let mut now = second(61);
        for (gap, refused_later) in arrivals {
            now = now + Duration::from_nanos(gap);
            match all.admit(now, RAMPED) {
                Ok(permit) if refused_later => {
                    all.settle(now, RAMPED, permit, Verdict::None);
                }
                Ok(permit) => prop_assert_eq!(others.admit(now, RAMPED), Ok(permit)),
                Err(_) => {}
            }
        }
    }

    /// Law: whatever happens in whatever order, only the four legal transitions happen, Open is never followed by
    /// Closed, and no more probes are out than allowed.
    #[test]
    fn open_is_never_followed_by_closed(
        steps in proptest::collection::vec((0u64..40, 0usize..8, 0u8..6), 1..200),
        ramp in 0u64..90,
    ) {
        let timing = Timing { ramp: Duration::from_secs(ramp), ..TIMING };
        let state = State::new();
        let mut permits = Vec::new();
        let (mut now, mut last) = (1, BreakerState::Closed);
        for (gap, which, action) in steps {
            now += gap;
            let verdict = [Verdict::Success, Verdict::Failure, Verdict::None].get(action as usize);
            match (verdict, action) {
                (Some(verdict), _) if !permits.is_empty() => {
                    let permit = permits.swap_remove(which % permits.len());
                    state.settle(second(now), timing, permit, *verdict);
                }
                (_, 4) => state.tick(second(now), timing),
                (_, 5) if !permits.is_empty() => {
                    state.trip(second(now), timing, permits[which % permits.len()]);
                }
                _ => permits.extend(state.admit(second(now), timing)),
            }
            let present = state.state();
            let legal = matches!(
                (last, present),
                (BreakerState::Closed, BreakerState::Open)
                    | (BreakerState::Open, BreakerState::HalfOpen)
                    | (BreakerState::HalfOpen, BreakerState::Open | BreakerState::Closed)
            );
            prop_assert!(present == last || legal, "{last:?} to {present:?}");
            let out = permits.iter().filter(|p| state.probes(**p)).count();
            prop_assert!(present != BreakerState::HalfOpen || out <= TIMING.probes as usize);
            last = present;
        }
    }
}
