//! Scenarios that Netflix' concurrency-limits publishes in its documentation and tests, as behaviours of this limit of
//! places. Where it differs: its partitions are guaranteed shares that others may use while they are free, and the
//! reserve of high is nobody else's.

use super::*;

/// A limit and what its algorithm has seen.
struct Limiter {
    engine: Engine,
    now: Tick,
}

impl Limiter {
    fn new(algorithm: &str, initial: u32) -> Self {
        let concurrency = format!(
            r#"{PRIORITY},"concurrency":{{"policy":"inference/llama","mode":"Enforce","algorithm":{algorithm},
            "initial":{initial},"min":2,"max":100}}"#
        );
        Self { engine: Engine::new(&document(&concurrency), 1, second(0)), now: second(0) }
    }

    fn acquire(&self) -> Option<Admission> {
        admit(&self.engine, self.now, &Request::priority("high")).ok()
    }

    fn release(&self, admission: Admission) {
        let _ = self.engine.complete(self.now, admission.ticket, &Completion::default());
    }

    fn limit(&self) -> u64 {
        self.engine.snapshot(self.now).concurrency.unwrap().limit
    }

    /// A window in which so many requests were in flight at once and took so long each; the first was answered with
    /// this status. Returns the limit after it.
    fn window(&mut self, in_flight: usize, latency: Duration, status: u16) -> u64 {
        let mut running: Vec<_> = (0..in_flight).map(|_| self.acquire().unwrap()).collect();
        let end = self.now + latency;
        for (n, admission) in running.iter_mut().enumerate() {
            let status = if n == 0 { status } else { 200 };
            self.engine.responded(end, &mut admission.ticket, HeadOutcome::Status(status));
            self.engine.first_byte(end, &mut admission.ticket);
        }
        let completion = Completion { first_byte: Some(end), whole: true, ..Completion::default() };
        for admission in running {
            let _ = self.engine.complete(end, admission.ticket, &completion);
        }
        self.now = self.now + latency.max(Duration::from_secs(1));
        let _ = self.engine.tick(self.now);
        self.limit()
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const AIMD: &str = r#"{"aimd":{"timeoutMillis":100}}"#;
const GRADIENT2: &str = r#"{"gradient2":{"smoothing":1.0,"headroom":4}}"#;

#[test]
fn a_fixed_limit_gives_so_many_permits_and_one_again_for_each_that_comes_back() {
    let limiter = Limiter::new(r#""static""#, 10);
    let mut permits: Vec<_> = (0..10).map(|_| limiter.acquire().unwrap()).collect();
    assert!(limiter.acquire().is_none());
    limiter.release(permits.pop().unwrap());
    permits.extend(limiter.acquire());
    assert_eq!(permits.len(), 10);
    assert!(limiter.acquire().is_none());
    for permit in permits {
        limiter.release(permit);
    }
    assert_eq!(limiter.limit(), 10, "whatever came back, and how fast");
}

#[test]
fn aimd_adds_one_on_success_and_takes_a_tenth_on_a_drop_or_a_timeout() {
    let mut limiter = Limiter::new(AIMD, 10);
    assert_eq!(limiter.limit(), 10);
    assert_eq!(limiter.window(10, MILLISECOND, 200), 11);
    let mut limiter = Limiter::new(AIMD, 10);
    assert_eq!(limiter.window(10, MILLISECOND, 503), 9);
    let mut limiter = Limiter::new(AIMD, 10);
    assert_eq!(limiter.window(10, 101 * MILLISECOND, 200), 9);
}

#[test]
fn aimd_adds_nothing_while_less_than_half_of_the_limit_is_in_use() {
    let mut limiter = Limiter::new(AIMD, 25);
    for _ in 0..3 {
        assert_eq!(limiter.window(12, MILLISECOND, 200), 25);
    }
}

#[test]
fn gradient2_grows_by_its_headroom_while_the_latency_stays_and_within_its_tolerance() {
    let mut limiter = Limiter::new(GRADIENT2, 10);
    assert_eq!(limiter.window(10, 10 * MILLISECOND, 200), 14);
    assert_eq!(limiter.window(14, 10 * MILLISECOND, 200), 18);
    assert_eq!(limiter.window(18, 11 * MILLISECOND, 200), 22);
}

#[test]
fn gradient2_halves_its_limit_at_most_when_the_latency_multiplies() {
    let mut limiter = Limiter::new(GRADIENT2, 10);
    for in_flight in [10, 14, 18] {
        limiter.window(in_flight, 10 * MILLISECOND, 200);
    }
    assert_eq!(limiter.window(22, 1000 * MILLISECOND, 200), 22 / 2 + 4);
}

#[test]
fn gradient2_stays_where_it_is_while_less_than_half_of_the_limit_is_in_use() {
    let mut limiter = Limiter::new(GRADIENT2, 25);
    for _ in 0..3 {
        assert_eq!(limiter.window(12, 10 * MILLISECOND, 200), 25);
    }
}
