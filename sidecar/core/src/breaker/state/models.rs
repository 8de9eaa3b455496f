//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-core --lib --release models`.

use loom::sync::Arc;
use loom::thread;

use super::*;

const TIMING: Timing = Timing { open: Duration::from_millis(1), probes: 1, consecutive_failures: Some(1) };

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
