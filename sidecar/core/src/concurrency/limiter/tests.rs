use proptest::prelude::*;
use tidegate_policy::{LatencySignal, Mode, PriorityClass};

use super::*;
use crate::concurrency::Pool;
use crate::lane::Lane;

const ADAPTIVE: ConcurrencyAlgorithm =
    ConcurrencyAlgorithm::Adaptive { target_millis: None, tolerance: None, kv_cache: None };
const GRADIENT2: ConcurrencyAlgorithm =
    ConcurrencyAlgorithm::Gradient2 { tolerance: None, smoothing: None, headroom: None };
const AIMD: ConcurrencyAlgorithm = ConcurrencyAlgorithm::Aimd { backoff: None, timeout_millis: None };
const ALGORITHMS: [ConcurrencyAlgorithm; 4] = [ADAPTIVE, GRADIENT2, AIMD, ConcurrencyAlgorithm::Static];

fn concurrency(algorithm: ConcurrencyAlgorithm, initial: u32, min: u32, max: u32) -> Concurrency {
    let latency = LatencySignal::TimeToFirstToken;
    Concurrency { policy: "n/p".to_owned(), mode: Mode::Enforce, algorithm, initial, min, max, latency }
}

/// A limiter and an engine that runs `slots` requests at once, each for a second; the others wait in it.
struct World {
    limiter: Limiter,
    flow: Flow,
    permits: Permits,
    now: Tick,
    slots: u32,
    /// Time to first token without waiting.
    first: Duration,
    running: Vec<(Tick, Pool)>,
    waiting: Vec<(Tick, Pool)>,
    tells: bool,
    reads: bool,
}

impl World {
    fn new(config: &Concurrency, slots: u32) -> Self {
        let (flow, permits, now) = (Flow::new(), Permits::new(), Tick::default());
        let limiter = Limiter::new(config, 0.1, now, &flow);
        permits.publish(limiter.bounds(0.0));
        let first = Duration::from_millis(50);
        Self {
            limiter,
            flow,
            permits,
            now,
            slots,
            first,
            running: vec![],
            waiting: vec![],
            tells: true,
            reads: false,
        }
    }

    /// So many seconds with so many medium requests a second.
    fn run(&mut self, seconds: u64, per_second: u64) {
        let lane = Lane::of_this_thread();
        let mut due = 0;
        for step in 0..seconds * 100 {
            self.now = self.now + Duration::from_millis(10);
            self.end(lane);
            due += per_second;
            while due >= 100 {
                due -= 100;
                match self.permits.take(PriorityClass::Medium) {
                    Some(pool) => {
                        self.flow.enter(lane, PriorityClass::Medium);
                        self.waiting.push((self.now, pool));
                    }
                    None => self.flow.refuse(lane, PriorityClass::Medium),
                }
            }
            self.start(lane);
            if step % 10 == 0 {
                let reading = self.reads.then_some(EngineReading {
                    kv_cache_usage: Some(self.running.len() as f64 / f64::from(self.slots)),
                    running: Some(self.running.len() as u64),
                    waiting: Some(self.waiting.len() as u64),
                    preemptions: Some(0),
                    at: self.now,
                });
                let progress = Progress { queue: Waits::default(), pressure: 0.0, reading };
                self.limiter.tick(self.now, &self.flow, &self.permits, progress);
            }
        }
    }

    fn end(&mut self, lane: Lane) {
        let now = self.now;
        let ended = self.running.extract_if(.., |(end, _)| *end <= now);
        for (_, pool) in ended {
            self.permits.give_back(pool);
            if !self.tells {
                self.flow.begin(lane, false);
            }
        }
    }

    fn start(&mut self, lane: Lane) {
        while self.running.len() < self.slots as usize && !self.waiting.is_empty() {
            let (arrived, pool) = self.waiting.remove(0);
            self.flow.sample(lane, self.now.since(arrived) + self.first);
            if self.tells {
                self.flow.begin(lane, true);
            }
            self.running.push((self.now + Duration::from_secs(1), pool));
        }
    }
}

#[test]
fn it_finds_what_the_engine_has_use_for_with_and_without_its_readings() {
    for (tells, reads) in [(true, false), (true, true), (false, false)] {
        let mut world = World::new(&concurrency(ADAPTIVE, 20, 4, 1000), 60);
        (world.tells, world.reads) = (tells, reads);
        world.run(120, 200);
        let in_flight = world.permits.in_use().total();
        assert!((48..=90).contains(&in_flight), "{in_flight} of 60, tells {tells}, reads {reads}");
        world.run(60, 5);
        assert!(world.limiter.limit() >= 48, "a lull changes nothing: {}", world.limiter.limit());
    }
}

#[test]
fn an_engine_that_hangs_is_seen_although_nothing_completes() {
    let mut world = World::new(&concurrency(ADAPTIVE, 20, 4, 1000), 60);
    world.run(60, 200);
    let before = world.limiter.limit();
    world.slots = 0;
    world.run(30, 200);
    assert!(world.limiter.limit() < before / 2, "{} of {before}", world.limiter.limit());
}

#[test]
fn the_limit_comes_back_from_its_floor_when_the_engine_stays_slower_for_good() {
    let mut world = World::new(&concurrency(ADAPTIVE, 20, 4, 1000), 60);
    world.run(60, 200);
    world.first = Duration::from_secs(2);
    world.run(30, 200);
    world.run(240, 200);
    assert!(world.limiter.limit() > 20, "{} of 60", world.limiter.limit());
}

#[test]
fn long_streams_do_not_poison_it() {
    let mut world = World::new(&concurrency(ADAPTIVE, 20, 4, 1000), 60);
    world.run(60, 200);
    let before = world.limiter.limit();
    // Streams without end take half of the engine; the other half is as quick as before.
    let streams: Vec<_> = world.running.drain(..30).collect();
    world.slots -= 30;
    world.run(60, 200);
    assert!(world.limiter.limit() * 10 > before * 8, "{} of {before}", world.limiter.limit());
    drop(streams);
}

#[test]
fn a_batch_that_has_just_begun_is_no_reason_to_take_more_than_the_cache_will_hold() {
    let mut adaptive = Adaptive::new(None, None, None);
    let mut limit = 20.0;
    let mut say = |second: u64, usage: f64| {
        let reading = EngineReading {
            kv_cache_usage: Some(usage),
            running: Some(20),
            waiting: Some(0),
            preemptions: Some(0),
            at: Tick::from_nanos(second * 1_000_000_000),
        };
        let window = Window {
            elapsed: Duration::from_secs(1),
            in_flight: 20,
            peak: 20,
            used: true,
            spare: 0,
            mean: Some(0.05),
            dropped: false,
            pending: Some(0),
            begun: 20,
            reading: Some(reading),
        };
        limit = adaptive.update(limit, 4.0, &window);
        limit
    };
    (0..10).for_each(|second| _ = say(second, 0.8));
    // Twenty have filled four fifths. The engine starts anew, and the first tokens of twenty others take little.
    (10..15).for_each(|second| _ = say(second, 0.1));
    let young = say(15, 0.1);
    assert!(young < 0.9 / (0.8 / 20.0) * 1.25, "{young}");
    assert!(say(16, f64::NAN).is_finite());
    // Requests that stay small are believed in the end.
    (17..200).for_each(|second| _ = say(second, 0.1));
    let small = say(200, 0.1);
    assert!(small > 100.0, "{small}");
}

#[test]
fn the_others_find_a_limit_too() {
    let timeout_millis = tidegate_policy::Millis::new(300).ok();
    for algorithm in [GRADIENT2, ConcurrencyAlgorithm::Aimd { backoff: None, timeout_millis }] {
        let mut world = World::new(&concurrency(algorithm, 20, 4, 1000), 60);
        world.run(180, 200);
        let limit = world.limiter.limit();
        assert!((40..400).contains(&limit), "{algorithm:?}: {limit}");
    }
}

#[test]
fn pressure_moves_medium_down_from_what_was_in_flight_without_it_and_nobody_else() {
    let mut world = World::new(&concurrency(ConcurrencyAlgorithm::Static, 100, 4, 100), 60);
    world.run(10, 40);
    let calm = world.permits.in_use().total();
    let bounds = |pressure| world.limiter.bounds(pressure);
    assert_eq!((bounds(0.0).common, bounds(0.0).medium), (90, 90));
    assert_eq!((bounds(1.0).common, bounds(1.0).reserve), (90, 10));
    assert!(bounds(1.0).medium.abs_diff(calm / 4) <= 1, "{:?} of {calm}", bounds(1.0));
    assert!(bounds(0.5).medium >= calm && bounds(0.1).medium == 90, "{:?}", bounds(0.5));
}

proptest! {
    #[test]
    fn the_limit_stays_in_its_bounds_and_low_never_has_more_than_medium_than_high(
        algorithm in 0usize..4, initial in 2u32..100_000, min in 2u32..100_000, max in 2u32..100_000,
        reserved in 0.0f64..=1.0, pressure in 0.0f64..=1.0,
        steps in proptest::collection::vec((any::<u64>(), any::<u64>(), 0u64..20, 0.0f64..=2.0), 1..40),
    ) {
        let (min, max) = (min.min(max), min.max(max));
        let config = concurrency(ALGORITHMS[algorithm], initial.clamp(min, max), min, max);
        let (flow, permits, lane) = (Flow::new(), Permits::new(), Lane::of_this_thread());
        let mut limiter = Limiter::new(&config, reserved, Tick::default(), &flow);
        for (time, number, requests, usage) in steps {
            // Time jumps, stands still and runs backwards.
            let now = Tick::from_nanos(if time % 3 == 0 { time } else { time % 10_000_000_000 });
            for _ in 0..requests {
                if permits.take(PriorityClass::Medium).is_some() {
                    flow.enter(lane, PriorityClass::Medium);
                }
                flow.sample(lane, Duration::from_nanos(number));
                flow.begin(lane, number % 2 == 0);
            }
            let reading = EngineReading {
                kv_cache_usage: Some(usage), running: Some(number), waiting: Some(time), preemptions: Some(number), at: now,
            };
            let progress = Progress { queue: Waits { waiting: number, in_vain: number }, pressure, reading: Some(reading) };
            let advice = limiter.tick(now, &flow, &permits, progress);
            for (earliest, width) in advice.spread {
                prop_assert!(earliest > Duration::ZERO && earliest.max(width) <= Duration::from_mins(5));
            }
            prop_assert!((min..=max).contains(&limiter.limit()));
            let Bounds { reserve, common, medium, low } = limiter.bounds(pressure);
            prop_assert!(reserve >= 1 && common >= 1 && reserve + common <= limiter.limit());
            prop_assert!(medium >= 1 && medium <= common && low <= medium);
        }
    }

    #[test]
    fn an_idle_limit_does_not_creep(algorithm in 0usize..4, hours in 1u64..10) {
        let mut world = World::new(&concurrency(ALGORITHMS[algorithm], 50, 4, 1000), 60);
        world.run(20, 3);
        let before = world.limiter.limit();
        world.run(5, 0);
        world.now = world.now + Duration::from_secs(3600 * hours);
        world.run(20, 3);
        prop_assert_eq!(world.limiter.limit(), before);
    }
}
