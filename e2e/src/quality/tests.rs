//! The bench in small.

use std::time::Duration;

use super::{
    report,
    study::{Effort, Study},
    workload::{BASE_LOAD, Plan, requests, saturation},
};
use crate::trace::{self, Trace};
use tidegate_cli::engine_model::ModelConfig;
use tidegate_policy::PriorityClass;

fn synthetic() -> Trace {
    trace::load(None).unwrap()
}

fn small() -> Effort {
    Effort {
        warm_up: Duration::from_secs(20),
        level: Duration::from_secs(20),
        recovery: Duration::from_secs(30),
        seeds: 1,
        tuning_seeds: 1,
        tries: 1,
    }
}

#[test]
fn equal_seeds_give_equal_tables_and_every_policy_stays_below_the_fluid_bound() {
    let trace = synthetic();
    let results = Study::new(&trace, small()).run("static", |_| ());
    let again = Study::new(&trace, small()).run("static", |_| ());
    assert_eq!(report::markdown(&results), report::markdown(&again));
    for policy in &results.policies {
        let goodput = policy.scores[0].goodput;
        assert!(goodput > 0.0 && goodput < results.bounds[0], "{}: {goodput}", policy.name);
    }
}

#[test]
fn one_copy_asks_for_about_two_thirds_of_what_the_engine_can_do() {
    let trace = synthetic();
    let config = ModelConfig::llama_3_8b_on_rtx_4090();
    let saturation = saturation(&config, &trace.entries);
    let plan = Plan::new(Duration::from_mins(30), Duration::ZERO, Duration::ZERO);
    let requests = requests(&config, &trace.entries, saturation, &plan, 1);
    let load = requests.len() as f64 / 1800.0 / saturation;
    assert!((load / BASE_LOAD - 1.0).abs() < 0.1, "{load}");
}

#[test]
fn tidegate_serves_high_where_no_policy_serves_nobody() {
    let trace = synthetic();
    let effort = Effort { level: Duration::from_mins(1), warm_up: Duration::from_mins(1), ..small() };
    let study = Study::new(&trace, effort);
    let of = |name| {
        let results = study.run(name, |_| ());
        let policy = results.policies.into_iter().find(|policy| policy.name == name).unwrap();
        policy.scores[0]
    };
    let (none, ours) = (of("none"), of("Tidegate"));
    assert!(none.attained[0] < 0.5 && ours.attained[0] > 0.6, "{none:?} {ours:?}");
    assert!(ours.goodput > 1.5 * none.goodput, "{none:?} {ours:?}");
    assert!(ours.inverted < 0.01, "high was refused while low was admitted: {ours:?}");
}

#[test]
fn greedy_tenants_never_ask_for_high_and_send_most_of_the_overload() {
    let trace = synthetic();
    let config = ModelConfig::llama_3_8b_on_rtx_4090();
    let plan = Plan::new(Duration::from_secs(10), Duration::from_secs(10), Duration::from_secs(10));
    let requests = requests(&config, &trace.entries, 3.0, &plan, 1);
    let greedy = requests.iter().filter(|request| request.tenant >= 8);
    assert!(greedy.clone().all(|request| request.class != PriorityClass::High));
    assert!(greedy.count() * 2 > requests.len());
}
