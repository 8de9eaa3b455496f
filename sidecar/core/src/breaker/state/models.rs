//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-core --lib --release models`.

use loom::sync::Arc;
use loom::thread;

use super::*;

const TIMING: Timing = Timing {
    open: Duration::from_millis(1),
    probes: 1,
    consecutive_failures: Some(1),
    ramp: Duration::ZERO,
    seed: 7,
};

fn millis(n: u64) -> Tick {
    Tick::from_nanos(n * NANOS_PER_MILLI)
}

fn opened() -> State {
    let state = State::new();
    let permit = state.admit(millis(1), TIMING).unwrap();
    state.settle(millis(1), TIMING, permit, Verdict::Failure);
    state
}

#[test]
fn of_two_that_race_for_the_only_probe_one_gets_it() {
    loom::model(|| {
        let state = Arc::new(opened());
        let other = {
            let state = Arc::clone(&state);
            thread::spawn(move || state.admit(millis(2), TIMING).is_ok())
        };
        let mine = state.admit(millis(2), TIMING).is_ok();
        assert!(mine ^ other.join().unwrap());
    });
}

#[test]
fn failures_in_a_row_are_not_lost_when_two_fail_at_once() {
    loom::model(|| {
        let timing = Timing { consecutive_failures: Some(2), ..TIMING };
        let state = Arc::new(State::new());
        let fail = move |state: &State| {
            if let Ok(permit) = state.admit(millis(1), timing) {
                state.settle(millis(1), timing, permit, Verdict::Failure);
            }
        };
        let other = {
            let state = Arc::clone(&state);
            thread::spawn(move || fail(&state))
        };
        fail(&state);
        other.join().unwrap();
        assert_eq!(state.state(), BreakerState::Open);
    });
}

#[test]
fn a_late_success_of_the_closed_state_never_closes_an_open_breaker() {
    loom::model(|| {
        let state = Arc::new(State::new());
        let early = state.admit(millis(1), TIMING).unwrap();
        let failing = state.admit(millis(1), TIMING).unwrap();
        let other = {
            let state = Arc::clone(&state);
            thread::spawn(move || state.settle(millis(1), TIMING, early, Verdict::Success))
        };
        state.settle(millis(1), TIMING, failing, Verdict::Failure);
        other.join().unwrap();
        assert_eq!(state.state(), BreakerState::Open);
    });
}

#[test]
fn two_rules_that_refuse_at_once_give_both_probes_back() {
    loom::model(|| {
        let timing = Timing { probes: 2, ..TIMING };
        let state = Arc::new(opened());
        let refused = move |state: &State| {
            let permit = state.admit(millis(2), timing).unwrap();
            state.settle(millis(2), timing, permit, Verdict::None);
        };
        let other = {
            let state = Arc::clone(&state);
            thread::spawn(move || refused(&state))
        };
        refused(&state);
        other.join().unwrap();
        assert!((0..2).all(|_| state.admit(millis(2), timing).is_ok()), "both probes are free again");
        assert!(state.admit(millis(2), timing).is_err());
    });
}

#[test]
fn of_two_that_trip_at_once_one_moves_it_and_nothing_goes_from_open_to_closed() {
    loom::model(|| {
        let timing = Timing { ramp: Duration::from_millis(1), ..TIMING };
        let state = Arc::new(opened());
        let probe = state.admit(millis(2), timing).unwrap();
        let other = {
            let state = Arc::clone(&state);
            thread::spawn(move || state.trip_now(millis(2), timing))
        };
        let closed = state.settle(millis(2), timing, probe, Verdict::Success);
        state.tick(millis(4), timing);
        let moved = other.join().unwrap();
        // The success came first and the ramp, or even the closed state, was tripped; or it had no say.
        assert!(moved.is_some());
        assert_eq!(closed, None, "the ramp is half-open too");
        assert_eq!(state.state(), BreakerState::Open);
    });
}
