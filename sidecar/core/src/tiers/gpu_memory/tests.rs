use proptest::prelude::*;
use tidegate_policy::{KvCache, Millis, Plateau, Ratio};

use super::*;

const G: u64 = 1 << 30;

fn second(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000_000)
}

fn recovery() -> Recovery {
    let hold_millis = Millis::new(5000).unwrap();
    Recovery { below_ratio: Ratio::new(0.9).unwrap(), hold_millis, ramp_millis: None }
}

fn tier(on_stale: OnStale, max_bytes: Option<u64>) -> GpuMemory {
    let config = GpuMemoryTier {
        source: MemorySource::Nvml,
        max_utilization: Ratio::new(0.75).ok(),
        max_bytes,
        plateau: None,
        kv_cache: None,
        stale_after_millis: Millis::new(10_000).unwrap(),
        on_stale,
    };
    GpuMemory::new(config, recovery(), second(0))
}

fn read(tier: &mut GpuMemory, at: u64, used: u64) {
    let work = Work { succeeded: at, ..Work::default() };
    tier.observe(second(at), GpuMemoryReading { used, total: 40 * G, at: second(at) }, work, false);
}

#[test]
fn it_trips_over_the_share_and_recovers_below_nine_tenths_of_it() {
    let mut tier = tier(OnStale::Ignore, None);
    read(&mut tier, 1, 30 * G);
    assert_eq!(tier.standing().state, TierState::Normal, "30 of 40 GiB is exactly 75 %");
    read(&mut tier, 2, 31 * G);
    assert_eq!(tier.standing().state, TierState::Tripped);
    let reason = "31.0 GiB of 40.0 GiB over the ceiling of 30.0 GiB";
    assert_eq!(tier.standing().hysteresis.last().unwrap().reason, reason);
    read(&mut tier, 3, 26 * G);
    assert_eq!(tier.standing().state, TierState::Recovering);
    tier.tick(second(8), Work::default());
    assert_eq!(tier.standing().state, TierState::Normal);
}

#[test]
fn the_lower_of_share_and_amount_holds() {
    let mut tier = tier(OnStale::Ignore, Some(20 * G));
    read(&mut tier, 1, 21 * G);
    assert_eq!(tier.standing().threshold, Some(20.0 * G as f64));
    assert_eq!(tier.standing().state, TierState::Tripped);
}

#[test]
fn a_stale_reading_that_is_ignored_sheds_nothing_and_presses_nothing() {
    let mut tier = tier(OnStale::Ignore, None);
    read(&mut tier, 1, 39 * G);
    assert!(tier.standing().shedding());
    tier.tick(second(11), Work::default());
    let standing = tier.standing();
    assert_eq!((standing.state, standing.shedding()), (TierState::Stale, false));
    assert!(standing.pressure() <= 0.0);
    assert_eq!(standing.stale_reason, Some("no GPU memory reading for 10.0 s"));
}

#[test]
fn a_stale_reading_that_is_held_stays_in_force() {
    let mut tier = tier(OnStale::HoldLast, None);
    read(&mut tier, 1, 39 * G);
    tier.tick(second(100), Work::default());
    assert_eq!((tier.standing().state, tier.standing().shedding()), (TierState::Stale, true));
}

#[test]
fn a_reading_that_never_came_trips_if_it_was_told_to() {
    let mut tier = tier(OnStale::Trip, None);
    tier.tick(second(9), Work::default());
    assert_eq!((tier.standing().state, tier.standing().shedding()), (TierState::Learning, false));
    tier.tick(second(10), Work::default());
    assert_eq!((tier.standing().state, tier.standing().shedding()), (TierState::Stale, true));
    assert_eq!(tier.standing().hysteresis.last().unwrap().reason, "no GPU memory reading in 10.0 s");
    read(&mut tier, 11, G);
    tier.tick(second(16), Work::default());
    assert_eq!((tier.standing().state, tier.standing().shedding()), (TierState::Normal, false));
}

#[test]
fn a_pod_without_a_gpu_is_stale_with_that_reason() {
    let mut tier = tier(OnStale::Ignore, None);
    tier.observe(second(1), GpuMemoryReading { used: 0, total: 0, at: second(1) }, Work::default(), false);
    let standing = tier.standing();
    assert_eq!((standing.state, standing.shedding()), (TierState::Stale, false));
    assert_eq!((standing.value, standing.stale_reason), (None, Some("the pod has no GPU")));
}

#[test]
fn a_reading_that_arrives_out_of_order_is_not_taken() {
    let mut tier = tier(OnStale::Ignore, None);
    read(&mut tier, 5, 10 * G);
    tier.observe(
        second(6),
        GpuMemoryReading { used: 39 * G, total: 40 * G, at: second(4) },
        Work::default(),
        false,
    );
    assert_eq!(tier.standing().value, Some(10.0 * G as f64));
}

fn gib(n: f64) -> u64 {
    (n * G as f64) as u64
}

/// Half of what lies above the plateau may be used; the plateau is stable after 30 s.
fn with_plateau(source: MemorySource) -> GpuMemory {
    let plateau = Plateau { stable_millis: Millis::new(30_000).unwrap(), growth: Ratio::new(0.5).unwrap() };
    let kv_cache = KvCache {
        max_usage: Ratio::new(0.9).unwrap(),
        stale_after_millis: Millis::new(5000).unwrap(),
        on_stale: OnStale::Ignore,
    };
    let before = tier(OnStale::Ignore, None);
    let config = GpuMemoryTier { source, plateau: Some(plateau), kv_cache: Some(kv_cache), ..before.config };
    GpuMemory::new(config, recovery(), second(0))
}

#[test]
fn what_an_engine_reserves_at_its_start_is_learned_and_growth_above_it_counts() {
    let mut tier = with_plateau(MemorySource::Nvml);
    for (at, used) in [(2, 5.0), (4, 20.0), (6, 36.0)] {
        read(&mut tier, at, gib(used));
        assert_eq!(tier.standing().state, TierState::Learning, "{used} GiB while it loads");
    }
    (8..=36).step_by(2).for_each(|at| read(&mut tier, at, gib(36.0)));
    let standing = tier.standing();
    assert_eq!((standing.state, standing.baseline), (TierState::Normal, Some(36.0 * G as f64)));
    assert_eq!(standing.threshold, Some(38.0 * G as f64), "half of the 4 GiB above it");
    read(&mut tier, 38, gib(38.5));
    assert_eq!(tier.standing().state, TierState::Tripped);
}

#[test]
fn a_slow_leak_trips_since_the_plateau_does_not_creep_along() {
    let mut tier = with_plateau(MemorySource::Nvml);
    (2..=40).step_by(2).for_each(|at| read(&mut tier, at, gib(36.0)));
    let trips = (42..).step_by(2).find(|at| {
        read(&mut tier, *at, gib(36.0 + (*at - 40) as f64 * 0.001));
        tier.standing().shedding()
    });
    assert!((2038..=2044).contains(&trips.unwrap()), "{trips:?}");
}

#[test]
fn an_engine_that_is_started_again_is_learned_again() {
    let mut tier = with_plateau(MemorySource::Nvml);
    (2..=40).step_by(2).for_each(|at| read(&mut tier, at, gib(36.0)));
    read(&mut tier, 42, gib(1.0));
    assert_eq!(tier.standing().state, TierState::Learning);
    (44..=80).step_by(2).for_each(|at| read(&mut tier, at, gib(24.0)));
    assert_eq!(tier.standing().baseline, Some(24.0 * G as f64));
    assert_eq!(tier.standing().threshold, Some(32.0 * G as f64));
}

#[test]
fn a_model_that_loads_and_tripped_time_are_no_plateau() {
    let mut loading = with_plateau(MemorySource::Nvml);
    let reading = |at: u64| GpuMemoryReading { used: gib(2.0), total: 40 * G, at: second(at) };
    (2..200).for_each(|at| loading.observe(second(at), reading(at), Work::default(), false));
    assert_eq!(loading.standing().state, TierState::Learning, "nothing was served yet");
    let mut tripped = with_plateau(MemorySource::Nvml);
    let work = |at: u64| Work { succeeded: at, ..Work::default() };
    (2..200).for_each(|at| tripped.observe(second(at), reading(at), work(at), true));
    assert_eq!(tripped.standing().state, TierState::Learning);
}

fn says(tier: &mut GpuMemory, at: u64, usage: f64, running: u64, waiting: u64, preemptions: u64, work: Work) {
    let reading = EngineReading {
        kv_cache_usage: Some(usage),
        running: Some(running),
        waiting: Some(waiting),
        preemptions: Some(preemptions),
        at: second(at),
    };
    tier.observe_engine(second(at), reading, work);
}

#[test]
fn ninety_waiting_requests_trip_at_a_fifth_of_the_cache() {
    let mut tier = with_plateau(MemorySource::Auto);
    says(&mut tier, 1, 0.19, 20, 0, 0, Work::default());
    assert_eq!(tier.standing().state, TierState::Normal);
    says(&mut tier, 2, 0.19, 20, 90, 0, Work::default());
    let standing = tier.standing();
    assert_eq!((standing.state, standing.unit), (TierState::Tripped, "ratio"));
    let reason = "104 % of the KV cache needed (19 % in use, 90 requests waiting) over the ceiling of 90 %";
    assert_eq!(standing.hysteresis.last().unwrap().reason, reason);
}

#[test]
fn a_full_cache_that_nobody_waits_for_is_no_reason_to_trip_until_requests_are_preempted() {
    let mut tier = with_plateau(MemorySource::Auto);
    says(&mut tier, 1, 0.99, 30, 0, 7, Work::default());
    assert_eq!(tier.standing().state, TierState::Normal);
    assert!(tier.standing().pressure() <= 0.5);
    says(&mut tier, 2, 0.99, 30, 0, 8, Work::default());
    assert_eq!(tier.standing().state, TierState::Tripped);
    says(&mut tier, 3, 0.99, 30, 0, 0, Work::default());
    assert_eq!(tier.standing().state, TierState::Tripped, "a counter that begins anew is no preemption");
    says(&mut tier, 4, 0.5, 30, 0, 0, Work::default());
    tier.tick(second(9), Work::default());
    assert_eq!(tier.standing().state, TierState::Normal);
}

#[test]
fn below_a_limit_of_places_it_trips_only_over_what_the_limit_does_not_bring_back() {
    let full = |tier: &mut GpuMemory, at| says(tier, at, 0.95, 19, 1, 0, Work::default());
    let tripped = |tier: &GpuMemory| tier.standing().state == TierState::Tripped;
    let mut alone = with_plateau(MemorySource::Auto);
    full(&mut alone, 1);
    assert!(tripped(&alone), "nobody else brings it back");
    let mut net = with_plateau(MemorySource::Auto);
    net.regulate(true);
    for at in 1..5 {
        full(&mut net, at);
        assert!(!tripped(&net), "the limit has had {} s", at - 1);
    }
    says(&mut net, 5, 0.85, 17, 1, 0, Work::default());
    (6..10).for_each(|at| full(&mut net, at));
    assert!(!tripped(&net), "it was brought back in between");
    full(&mut net, 10);
    assert!(tripped(&net));
    says(&mut net, 11, 0.2, 4, 0, 0, Work::default());
    assert!(!tripped(&net) && net.standing().shedding(), "on its way back");
    full(&mut net, 12);
    assert!(tripped(&net), "a relapse is waited for by nobody");
}

#[test]
fn of_an_engine_that_does_not_tell_its_preemptions_nothing_is_left_to_the_limit() {
    let mut tier = with_plateau(MemorySource::Auto);
    tier.regulate(true);
    let at = second(1);
    let reading = EngineReading {
        kv_cache_usage: Some(0.95),
        running: Some(19),
        waiting: Some(1),
        preemptions: None,
        at,
    };
    tier.observe_engine(at, reading, Work::default());
    assert_eq!(tier.standing().state, TierState::Tripped);
}

#[test]
fn what_was_admitted_since_the_reading_counts_by_its_tokens() {
    let mut tier = with_plateau(MemorySource::Auto);
    let before = Work { admitted: 100, tokens: 100_000, succeeded: 0 };
    says(&mut tier, 1, 0.5, 10, 0, 0, before);
    tier.tick(second(1), Work { admitted: 106, tokens: 103_000, succeeded: 0 });
    assert_eq!(tier.standing().state, TierState::Normal, "six small ones");
    tier.tick(second(1), Work { admitted: 112, tokens: 112_000, succeeded: 0 });
    assert_eq!(tier.standing().state, TierState::Tripped, "twelve of the usual size");
    let mut by_number = with_plateau(MemorySource::Auto);
    says(&mut by_number, 1, 0.5, 10, 0, 0, Work::default());
    by_number.tick(second(1), Work { admitted: 12, ..Work::default() });
    assert_eq!(by_number.standing().state, TierState::Tripped, "without tokens by their number");
}

#[test]
fn without_the_engines_word_nvml_decides_and_with_it_nvml_guards() {
    let mut tier = with_plateau(MemorySource::Auto);
    says(&mut tier, 1, 0.2, 10, 0, 0, Work::default());
    read(&mut tier, 1, gib(36.0));
    assert_eq!(tier.standing().state, TierState::Normal, "90 % is what the engine reserved");
    for at in (2..=40).step_by(2) {
        says(&mut tier, at, 0.2, 10, 0, 0, Work::default());
        read(&mut tier, at, gib(36.0));
    }
    read(&mut tier, 42, gib(39.0));
    assert_eq!(tier.standing().state, TierState::Tripped, "the guard");
    let signals = tier.signals(second(50));
    assert_eq!(signals[0].stale_reason.as_deref(), None, "as of the last look");
    tier.tick(second(50), Work::default());
    let signals = tier.signals(second(50));
    assert_eq!(signals[0].stale_reason.as_deref(), Some("no engine reading for 10.0 s"));
    assert_eq!((signals[1].name.as_str(), signals[1].age_millis), ("nvml", Some(8000)));
    assert_eq!(tier.standing().state, TierState::Tripped, "NVML goes on");
    tier.tick(second(52), Work::default());
    assert_eq!(tier.standing().state, TierState::Stale, "both are too old");
}

#[test]
fn an_engine_that_does_not_tell_its_cache_is_stale_and_numbers_that_are_none_are_ignored() {
    let mut tier = with_plateau(MemorySource::KvCache);
    let reading = |usage| EngineReading {
        kv_cache_usage: usage,
        running: None,
        waiting: None,
        preemptions: None,
        at: second(1),
    };
    for usage in [None, Some(f64::NAN), Some(f64::INFINITY)] {
        tier.observe_engine(second(1), reading(usage), Work::default());
        let standing = tier.standing();
        assert_eq!(standing.stale_reason, Some("the engine does not tell the use of its KV cache"));
    }
    tier.observe_engine(second(1), reading(Some(7.0)), Work::default());
    assert_eq!((tier.standing().value, tier.standing().state), (Some(1.0), TierState::Tripped));
}

#[test]
fn what_an_engine_reserved_neither_presses_nor_keeps_a_tripped_tier_from_recovering() {
    let mut tier = with_plateau(MemorySource::Auto);
    for at in 1..=70 {
        read(&mut tier, at, 36 * G);
        says(&mut tier, at, 0.5, 10, 0, 0, Work { succeeded: at, ..Work::default() });
    }
    assert_eq!(tier.standing().baseline, Some(36.0 * G as f64));
    assert!(tier.standing().pressure() <= 0.0, "90 % of the GPU, before any load");
    says(&mut tier, 71, 0.95, 20, 90, 0, Work { succeeded: 71, ..Work::default() });
    assert_eq!(tier.standing().state, TierState::Tripped);
    for at in 72..=80 {
        read(&mut tier, at, 36 * G);
        says(&mut tier, at, 0.3, 5, 0, 0, Work { succeeded: at, ..Work::default() });
    }
    assert_eq!(tier.standing().state, TierState::Normal);
}

fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX - 1), Just(u64::MAX), any::<u64>(), 0..100 * G]
}

fn share() -> impl Strategy<Value = Ratio> {
    let least = f64::MIN_POSITIVE;
    prop_oneof![Just(least), Just(1.0), least..=1.0].prop_map(|share| Ratio::new(share).unwrap())
}

fn time() -> impl Strategy<Value = Millis> {
    prop_oneof![Just(1), Just(Millis::MAX), 1..=120_000u64].prop_map(|millis| Millis::new(millis).unwrap())
}

fn on_stale() -> impl Strategy<Value = OnStale> {
    prop_oneof![Just(OnStale::Ignore), Just(OnStale::HoldLast), Just(OnStale::Trip)]
}

/// A tier that a document may ask for, with every number at its bounds or between them.
fn any_tier() -> impl Strategy<Value = (GpuMemoryTier, Recovery)> {
    let source = prop_oneof![Just(MemorySource::Nvml), Just(MemorySource::KvCache), Just(MemorySource::Auto)];
    let plateau = (time(), share()).prop_map(|(stable_millis, growth)| Plateau { stable_millis, growth });
    let kv_cache = (share(), time(), on_stale()).prop_map(|(max_usage, stale_after_millis, on_stale)| {
        KvCache { max_usage, stale_after_millis, on_stale }
    });
    let ceilings =
        (proptest::option::of(share()), proptest::option::of(1..=u64::MAX), proptest::option::of(plateau));
    let recovery = (share(), time(), proptest::option::of(time())).prop_map(
        |(below_ratio, hold_millis, ramp_millis)| Recovery { below_ratio, hold_millis, ramp_millis },
    );
    (source, ceilings, kv_cache, time(), on_stale(), recovery).prop_map(
        |(
            source,
            (max_utilization, max_bytes, plateau),
            kv_cache,
            stale_after_millis,
            on_stale,
            recovery,
        )| {
            let kv_cache = Some(kv_cache);
            let tier = GpuMemoryTier {
                source,
                max_utilization,
                max_bytes,
                plateau,
                kv_cache,
                stale_after_millis,
                on_stale,
            };
            (tier, recovery)
        },
    )
}

#[derive(Debug, Clone)]
enum Event {
    Nvml { used: u64, total: u64 },
    Engine { usage: Option<f64>, running: Option<u64>, waiting: Option<u64>, preemptions: Option<u64> },
    Passes,
}

fn event() -> impl Strategy<Value = Event> {
    let number = || proptest::option::of(bytes());
    let usage = prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(f64::MAX),
        Just(-0.0),
        0.0..=1.0f64,
    ];
    let engine = (proptest::option::of(usage), number(), number(), number());
    prop_oneof![
        (bytes(), bytes()).prop_map(|(used, total)| Event::Nvml { used, total }),
        engine.prop_map(|(usage, running, waiting, preemptions)| Event::Engine {
            usage,
            running,
            waiting,
            preemptions,
        }),
        Just(Event::Passes),
    ]
}

proptest! {
    /// Law: whatever the driver, the engine and the policy say, and however time goes, there is a pressure between 0
    /// and 1, a ceiling that is a number, and a reason for whatever is stale; and a tier that has never heard anything
    /// and was told to ignore that sheds nobody.
    #[test]
    fn no_extreme_of_any_field_breaks_the_gpu_tier(
        (config, recovery) in any_tier(),
        events in proptest::collection::vec((event(), bytes(), (bytes(), bytes(), bytes())), 1..40),
    ) {
        let mut tier = GpuMemory::new(config, recovery, Tick::default());
        let mut heard = false;
        for (event, nanos, (admitted, tokens, succeeded)) in events {
            // Forwards and backwards by up to centuries.
            let now = Tick::from_nanos(nanos);
            let work = Work { admitted, tokens, succeeded };
            match event {
                Event::Nvml { used, total } => {
                    heard = true;
                    tier.observe(now, GpuMemoryReading { used, total, at: now }, work, nanos % 2 == 0);
                }
                Event::Engine { usage, running, waiting, preemptions } => {
                    heard = true;
                    let reading = EngineReading { kv_cache_usage: usage, running, waiting, preemptions, at: now };
                    tier.observe_engine(now, reading, work);
                }
                Event::Passes => tier.tick(now, work),
            }
            let standing = tier.standing();
            prop_assert!((0.0..=1.0).contains(&standing.pressure()), "{standing:?}");
            prop_assert!(standing.threshold.is_none_or(|ceiling| ceiling.is_finite() && ceiling >= 0.0), "{standing:?}");
            prop_assert!(standing.value.is_none_or(|value| value >= 0.0), "{standing:?}");
            prop_assert!(standing.state != TierState::Stale || standing.stale_reason.is_some(), "{standing:?}");
            let ignores = config.on_stale == OnStale::Ignore
                && config.kv_cache.is_some_and(|cache| cache.on_stale == OnStale::Ignore);
            prop_assert!(heard || !ignores || !standing.shedding(), "{standing:?}");
            prop_assert!(tier.signals(now).iter().all(|signal| !signal.name.is_empty()));
        }
        let next = tier.succeed(config, recovery, Tick::from_nanos(u64::MAX), Work::default());
        prop_assert!((0.0..=1.0).contains(&next.standing().pressure()));
    }
}
