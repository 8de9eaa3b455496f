//! One bucket by key through Tidegate's whole core, beside limitador's counters in memory and sentinel-core's hotspot
//! rule, in the same rounds. Prints one JSON object for each figure.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use limitador::RateLimiter;
use limitador::limit::{Context, Limit, Namespace};
use sentinel_core::base::TrafficType;
use sentinel_core::{EntryBuilder, hotspot};
use tidegate_core::Tick;

#[path = "../../benches/decide/calm.rs"]
mod calm;
#[allow(dead_code)] // the core's own benchmark has more bounds
#[path = "../../benches/decide/figure.rs"]
mod figure;
#[allow(dead_code)] // and more traffic
#[path = "../../benches/decide/traffic.rs"]
mod traffic;

use figure::{Figure, median};
use traffic::{Clock, Request, SINGLE, admit, engine, introduce, uniform};

const CALLERS: u32 = 1_000;
const ROUND: usize = 20_000;
const ROUNDS: usize = 15;
/// Nobody is refused.
const LIMIT: u64 = 1_000_000_000;
const RESOURCE: &str = "chat";

fn main() {
    let engine = engine(SINGLE);
    introduce(&engine, &mut Clock::new(), CALLERS);
    let limitador = limitador();
    sentinel();
    let callers = uniform(CALLERS, ROUND);
    let requests: Vec<Request> = callers.iter().copied().map(Request::of).collect();
    let names: Vec<String> =
        requests.iter().map(|request| String::from_utf8_lossy(&request.key).into_owned()).collect();
    // What a caller of limitador would make of each request is made ahead.
    let contexts: Vec<Context<'_>> =
        names.iter().map(|name| HashMap::from([("user".to_owned(), name.clone())]).into()).collect();
    let namespace = Namespace::from(RESOURCE);
    let (origin, offset) = (Instant::now(), Duration::from_hours(1));
    let calm = calm::rounds(ROUNDS, || {
        let ours = cost(&requests, |request| {
            drop(black_box(admit(&engine, Tick::from_duration(offset + origin.elapsed()), request)));
        });
        let limitador = cost(&contexts, |context| {
            let checked = limitador.check_rate_limited_and_update(&namespace, context, 1);
            assert!(!checked.expect("counters are in memory").limited);
        });
        let sentinel = cost(&names, |name| {
            let entry = EntryBuilder::new(RESOURCE.to_owned())
                .with_traffic_type(TrafficType::Inbound)
                .with_args(Some(vec![name.clone()]))
                .build();
            entry.expect("nobody is refused").exit();
        });
        [ours, limitador, sentinel]
    });
    let note =
        format!("{} rounds of {ROUND}, {} discarded; all read the clock", calm.rounds.len(), calm.discarded);
    let of = |value: fn(&[f64; 3]) -> f64| median(calm.rounds.iter().map(value).collect());
    for figure in [
        Figure::new("one key's bucket beside its peers: ours", of(|round| round[0]), "ns").note(note),
        Figure::new("one key's bucket beside its peers: limitador 0.14.0", of(|round| round[1]), "ns"),
        Figure::new("one key's bucket beside its peers: sentinel-core 0.1.3", of(|round| round[2]), "ns"),
        Figure::new("ours / limitador", of(|round| round[0] / round[1]), "ratio").at_most(0.2),
        Figure::new("ours / sentinel-core", of(|round| round[0] / round[2]), "ratio").at_most(0.2),
    ] {
        figure.tell();
    }
}

/// A limit by user.
fn limitador() -> RateLimiter {
    let limiter = RateLimiter::new(u64::from(CALLERS) * 2);
    let user = "user".try_into().expect("a name is an expression");
    let nothing: Vec<limitador::limit::Predicate> = Vec::new();
    limiter.add_limit(Limit::new(RESOURCE, LIMIT, 60, nothing, vec![user]));
    limiter
}

/// A rule by the first argument.
fn sentinel() {
    sentinel_core::init_default().expect("sentinel-core starts");
    hotspot::load_rules(vec![Arc::new(hotspot::Rule {
        resource: RESOURCE.to_owned(),
        metric_type: hotspot::MetricType::QPS,
        control_strategy: hotspot::ControlStrategy::Reject,
        param_index: 0,
        threshold: LIMIT,
        duration_in_sec: 60,
        params_max_capacity: CALLERS as usize * 2,
        ..hotspot::Rule::default()
    })]);
}

/// Nanoseconds for each.
fn cost<T>(all: &[T], mut serve: impl FnMut(&T)) -> f64 {
    let start = Instant::now();
    all.iter().for_each(&mut serve);
    start.elapsed().as_nanos() as f64 / all.len() as f64
}
