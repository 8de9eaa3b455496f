use super::*;
use crate::{Place, Waiting};

const PLACES: &str = r#""concurrency":{"policy":"inference/llama","mode":"Enforce","algorithm":"static",
    "initial":4,"min":2,"max":10}"#;
const QUEUE: &str = r#""queue":{"policy":"inference/llama","mode":"Enforce","maxLength":3,"timeoutMillis":500,
    "tenant":[{"header":"x-api-key"}]}"#;

fn enqueue(engine: &Engine, now: Tick, request: &Request) -> Waiting {
    match engine.admit(now, &request.facts()) {
        Decision::Queue(waiting) => waiting,
        other => panic!("{other:?}"),
    }
}

fn complete(engine: &Engine, now: Tick, admission: Admission) -> Vec<Place> {
    engine.complete(now, admission.ticket, &Completion::default())
}

fn resume(engine: &Engine, now: Tick, waiting: Waiting) -> Result<Admission, Refusal> {
    match engine.resume(now, waiting) {
        Decision::Admit(admission) => Ok(admission),
        Decision::Refuse(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn fill(engine: &Engine, class: &str) -> Vec<Admission> {
    std::iter::from_fn(|| admit(engine, second(1), &Request::priority(class)).ok()).collect()
}

#[test]
fn without_a_queue_a_full_class_is_refused_and_names_the_limit_of_places() {
    let engine = Engine::new(&document(&format!("{PRIORITY},{PLACES}")), 1, second(0));
    let medium = fill(&engine, "medium");
    assert_eq!(medium.len(), 3, "one of four is kept for high");
    let refusal = admit(&engine, second(1), &Request::priority("medium")).unwrap_err();
    assert_eq!((refusal.cause, refusal.rule.name.as_str()), (Cause::Concurrency, "concurrency"));
    assert_eq!((refusal.observed, refusal.limit), (4.0, 3.0));
    assert!(refusal.retry_after > Duration::ZERO);
    let high = admit(&engine, second(1), &Request::priority("high")).unwrap();
    let status = engine.snapshot(second(1)).concurrency.unwrap();
    assert_eq!((status.limit, status.reserve, status.in_flight, status.refused), (4, 1, 4, 2));
    let _ = complete(&engine, second(1), high);
    for admission in medium {
        drop(complete(&engine, second(1), admission));
    }
    assert_eq!(fill(&engine, "high").len(), 4, "high uses its reserve and the common share");
}

#[test]
fn in_shadow_mode_places_are_counted_and_nobody_is_refused_or_waits() {
    let json = format!("{PLACES},{QUEUE}").replacen("Enforce", "Shadow", 1);
    let engine = Engine::new(&document(&json), 1, second(0));
    let admitted: Vec<_> =
        (0..10).map(|_| admit(&engine, second(1), &Request::priority("low")).unwrap()).collect();
    assert_eq!(admitted.iter().filter(|admission| admission.shadow.is_some()).count(), 8);
    for admission in admitted {
        drop(complete(&engine, second(1), admission));
    }
    assert_eq!(engine.snapshot(second(1)).concurrency.unwrap().in_flight, 0);
}

#[test]
fn a_request_waits_for_the_end_of_another() {
    let engine = Engine::new(&document(&format!("{PLACES},{QUEUE}")), 1, second(0));
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(admit(&engine, second(1), &Request::priority("medium")).unwrap());
    }
    let waiting = enqueue(&engine, second(1), &Request::priority("medium"));
    assert_eq!(engine.next_deadline(), Some(waiting.deadline()));
    assert_eq!(engine.snapshot(second(1)).queue.unwrap().length, 1);
    let Decision::Queue(waiting) = engine.resume(second(1), waiting) else { panic!("too early") };
    let turns = complete(&engine, second(1), running.pop().unwrap());
    assert_eq!(turns, [waiting.place()]);
    running.push(resume(&engine, second(1), waiting).unwrap());
    assert_eq!(engine.snapshot(second(1)).in_flight, 3);
    for admission in running {
        assert!(complete(&engine, second(1), admission).is_empty());
    }
}

#[test]
fn a_wait_that_ends_without_a_place_gives_everything_back() {
    let json = format!("{PLACES},{QUEUE},{LIMIT}");
    let engine = Engine::new(&document(&json), 1, second(0));
    let user = |n: u32| Request::from("10.0.0.1").with("x-api-key", &n.to_string());
    let running: Vec<_> = (0..3).map(|n| admit(&engine, second(1), &user(n)).unwrap()).collect();
    let waiting = enqueue(&engine, second(1), &user(7));
    let place = waiting.place();
    assert_eq!(admit(&engine, second(1), &user(7)).unwrap_err().cause, Cause::Limit, "it holds its token");
    assert_eq!(engine.tick(millis(1500)), [place]);
    let refusal = resume(&engine, millis(1500), waiting).unwrap_err();
    assert_eq!((refusal.cause, refusal.observed, refusal.limit), (Cause::QueueTimeout, 500.0, 500.0));
    let again = enqueue(&engine, millis(1500), &user(7));
    assert!(engine.leave(millis(1500), again).is_empty());
    let once_more = enqueue(&engine, millis(1500), &user(7));
    let _ = engine.leave(millis(1500), once_more);
    drop(running);
}

#[test]
fn a_full_queue_refuses_and_says_how_many_wait() {
    let engine = Engine::new(&document(&format!("{PLACES},{QUEUE}")), 1, second(0));
    let medium = Request::priority("medium");
    let _running: Vec<_> = (0..3).map(|_| admit(&engine, second(1), &medium).unwrap()).collect();
    let waiting: Vec<_> = (0..3).map(|_| enqueue(&engine, second(1), &medium)).collect();
    let refusal = admit(&engine, second(1), &medium).unwrap_err();
    assert_eq!((refusal.cause, refusal.rule.name.as_str()), (Cause::QueueFull, "queue"));
    assert_eq!((refusal.observed, refusal.limit), (3.0, 3.0));
    let status = engine.snapshot(second(1)).queue.unwrap();
    assert_eq!((status.length, status.refused), (3, 1));
    for waiting in waiting {
        drop(engine.leave(second(1), waiting));
    }
}

#[test]
fn a_policy_that_drops_the_limit_lets_everybody_go_who_waits() {
    let old = Engine::new(&document(&format!("{PLACES},{QUEUE}")), 1, second(0));
    let medium = Request::priority("medium");
    let running: Vec<_> = (0..3).map(|_| admit(&old, second(1), &medium).unwrap()).collect();
    let waiting = enqueue(&old, second(1), &medium);
    let new = old.succeed(&PolicyDocument::default(), second(1));
    assert_eq!(new.tick(second(1)), [waiting.place()]);
    let freed = resume(&old, second(1), waiting).unwrap();
    for admission in running.into_iter().chain([freed]) {
        drop(complete(&old, second(1), admission));
    }
    assert_eq!(new.snapshot(second(1)).in_flight, 0);
}

#[test]
fn places_and_those_who_wait_for_them_outlive_a_change_of_the_limit() {
    let old = Engine::new(&document(&format!("{PLACES},{QUEUE}")), 1, second(0));
    let medium = Request::priority("medium");
    let mut running: Vec<_> = (0..3).map(|_| admit(&old, second(1), &medium).unwrap()).collect();
    let waiting = enqueue(&old, second(1), &medium);
    let raised = PLACES.replace(r#""initial":4"#, r#""initial":6"#);
    let new = old.succeed(&document(&format!("{raised},{QUEUE}")), second(1));
    assert_eq!(new.tick(second(1)), [waiting.place()], "there are six places now");
    running.push(resume(&old, second(1), waiting).unwrap());
    for admission in running {
        drop(complete(&old, second(1), admission));
    }
    assert_eq!(new.snapshot(second(1)).concurrency.unwrap().in_flight, 0);
}

#[test]
fn a_probe_of_the_breaker_comes_back_from_the_queue() {
    let json = format!("{PLACES},{QUEUE},{}", breaker(""));
    let engine = Engine::new(&document(&json), 1, second(0));
    let request = Request::priority("medium");
    for _ in 0..2 {
        serve(&engine, second(1), &request, HeadOutcome::Failed).unwrap();
    }
    let _: Vec<_> = std::iter::from_fn(|| engine.permits.take(PriorityClass::Medium)).collect();
    let waiting = enqueue(&engine, second(61), &request);
    assert_eq!(
        admit(&engine, second(61), &request).unwrap_err().cause,
        Cause::Breaker,
        "it has the only probe"
    );
    let _ = engine.leave(second(61), waiting);
    let again = enqueue(&engine, second(61), &request);
    let _ = engine.leave(second(61), again);
}

#[test]
fn where_places_are_limited_the_rate_gradient_acts_for_the_qps_tier_alone() {
    let engine = Engine::new(&document(&format!("{},{PLACES}", gpu(10_000))), 1, second(0));
    read_gpu(&engine, second(1), 90);
    assert!(engine.snapshot(second(1)).pressure >= 1.0);
    let mut passed = 0;
    for n in 0..1000 {
        if let Ok(admission) = admit(&engine, millis(1000 + n), &Request::priority("medium")) {
            passed += 1;
            let _ = complete(&engine, millis(1000 + n), admission);
        }
    }
    assert_eq!(passed, 1000, "one after the other needs one place, whatever the rate");
    assert_eq!(
        admit(&engine, second(2), &Request::priority("low")).unwrap_err().cause,
        Cause::Tier(TierName::GpuMemory)
    );
}

#[test]
fn a_learned_ceiling_of_requests_refuses_low_and_leaves_medium_to_the_limit_of_places() {
    let learned = r#""learned":{"sigma":2,"factor":1.5,"floor":1,"minimumSamples":5}"#;
    for (ceiling, slows) in [(learned, false), (r#""max":20"#, true)] {
        let tiers = qps(20, "Enforce").replace(r#""max":20"#, ceiling);
        let engine = Engine::new(&document(&format!("{tiers},{PLACES}")), 1, second(0));
        let one_by_one = |from: u64, step: u64, class: &str| {
            let request = Request::priority(class);
            (0..100u64)
                .filter(|n| {
                    let now = millis(from + n * step);
                    let _ = engine.tick(now);
                    let Ok(mut admission) = admit(&engine, now, &request) else { return true };
                    engine.responded(now, &mut admission.ticket, HeadOutcome::Status(200));
                    let whole = Completion { whole: true, ..Completion::default() };
                    let _ = engine.complete(now, admission.ticket, &whole);
                    false
                })
                .count()
        };
        assert_eq!(one_by_one(0, 100, "medium"), 0, "calm");
        let slowed = one_by_one(10_000, 5, "medium");
        assert_eq!(slowed > 0, slows, "{slowed} of 100 with {ceiling}");
        let low = admit(&engine, millis(10_500), &Request::priority("low")).unwrap_err();
        assert_eq!(low.cause, Cause::Tier(TierName::Qps));
    }
}

#[test]
fn nobody_waits_for_longer_than_he_says_and_who_says_less_goes_first() {
    let engine = Engine::new(&document(&format!("{PLACES},{QUEUE}")), 1, second(0));
    let medium = || Request::priority("medium");
    let mut running: Vec<_> = (0..3).map(|_| admit(&engine, second(1), &medium()).unwrap()).collect();
    let longer = enqueue(&engine, second(1), &medium().with("x-stainless-timeout", "600"));
    let patient = enqueue(&engine, second(1), &medium().with("grpc-timeout", "400m"));
    let hurried = enqueue(&engine, second(1), &medium().with("x-envoy-expected-rq-timeout-ms", "100"));
    assert_eq!(longer.deadline(), millis(1500), "the policy's time is the longest");
    assert_eq!(engine.next_deadline(), Some(millis(1100)));
    assert_eq!(engine.tick(millis(1100)), [hurried.place()]);
    let refusal = resume(&engine, millis(1100), hurried).unwrap_err();
    assert_eq!((refusal.cause, refusal.observed, refusal.limit), (Cause::QueueTimeout, 100.0, 100.0));
    let turns = complete(&engine, millis(1200), running.pop().unwrap());
    assert_eq!(turns, [patient.place()], "it came later, and its time is up sooner");
    running.push(resume(&engine, millis(1200), patient).unwrap());
    assert_eq!(engine.leave(millis(1200), longer), []);
    drop(running);
}

/// Medium comes twenty times a second, and each of the three places that it may have is taken for three seconds: one
/// comes free each second.
struct Crowd {
    engine: Engine,
    running: Vec<(u64, Admission)>,
    waiting: Vec<Waiting>,
    begun: u64,
    refused: Vec<(u64, Refusal)>,
}

impl Crowd {
    fn before(json: &str) -> Self {
        let engine = Engine::new(&document(json), 1, second(0));
        Self { engine, running: Vec::new(), waiting: Vec::new(), begun: 0, refused: Vec::new() }
    }

    fn decided(&mut self, at: u64, decision: Decision) {
        match decision {
            Decision::Admit(admission) => {
                self.begun += 1;
                self.running.push((at + 1000 * self.begun.min(3), admission));
            }
            Decision::Queue(waiting) => self.waiting.push(waiting),
            Decision::Refuse(refusal) => self.refused.push((at, refusal)),
            Decision::Fallback(refusal) => panic!("{refusal:?}"),
        }
    }

    fn turns(&mut self, at: u64, places: Vec<Place>) {
        for place in places {
            let known = self.waiting.iter().position(|waiting| waiting.place() == place).unwrap();
            let waiting = self.waiting.swap_remove(known);
            let decision = self.engine.resume(millis(at), waiting);
            self.decided(at, decision);
        }
    }

    fn play(&mut self, seconds: u64) {
        for at in (0..seconds * 1000).step_by(50) {
            while let Some(over) = self.running.iter().position(|(end, _)| *end <= at) {
                let turns = complete(&self.engine, millis(at), self.running.swap_remove(over).1);
                self.turns(at, turns);
            }
            let turns = self.engine.tick(millis(at));
            self.turns(at, turns);
            let decision = self.engine.admit(millis(at), &Request::priority("medium").facts());
            self.decided(at, decision);
        }
    }
}

#[test]
fn those_who_find_no_place_are_told_no_time_before_one_comes_free_and_do_not_return_together() {
    for (json, causes) in [
        (PLACES.to_owned(), [Cause::Concurrency; 2]),
        (format!("{PLACES},{QUEUE}"), [Cause::QueueFull, Cause::QueueTimeout]),
    ] {
        let mut crowd = Crowd::before(&json);
        crowd.play(120);
        let late: Vec<_> = crowd.refused.iter().filter(|(at, _)| *at >= 60_000).collect();
        for cause in causes {
            assert!(late.iter().any(|(_, refusal)| refusal.cause == cause), "nobody is refused by {cause:?}");
        }
        for (at, refusal) in &late {
            let told = refusal.retry_after.as_secs_f64();
            assert!((0.85..=310.0).contains(&told), "told to come after {told} s at {at}: {refusal:?}");
        }
        let told = told(&crowd.engine, second(120), "medium");
        let together = told.windows(20).find(|some| some[19] - some[0] < 2.0);
        assert_eq!(together, None, "twenty of a hundred come back within two seconds");
    }
}
