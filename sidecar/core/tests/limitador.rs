//! What Limitador (<https://github.com/Kuadrant/limitador>) promises of its limits, in its words: `max_value`,
//! `seconds`, variables and `hits_addend`. Where it differs: a limit whose variable a request lacks does not apply
//! there, and here counts all who lack it together; its windows begin with their first hit, and these follow the
//! clock.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use tidegate_core::{Decision, Engine, Facts, Headers, NoClaims, Tick, Tokens};
use tidegate_policy::PolicyDocument;

struct Fields<'a>(&'a [(&'a str, &'a str)]);

impl Headers for Fields<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_bytes())
    }
}

/// So many hits in so many seconds for each combination of the variables.
fn limit(name: &str, max_value: u64, seconds: u64, variables: &[&str]) -> Value {
    let key: Vec<_> = variables.iter().map(|variable| json!({ "header": variable })).collect();
    json!({"policy": "a/b", "name": name, "mode": "Enforce", "key": key, "algorithm": "fixedWindow",
        "limit": max_value, "windowMillis": seconds * 1000, "cost": "promptTokens"})
}

struct Limitador(Engine);

impl Limitador {
    #[allow(clippy::unwrap_used)] // a helper of the tests below
    fn new(limits: &[Value]) -> Self {
        let document =
            json!({"apiVersion": "policy.tidegate.dev/v1", "revision": "r", "limits": limits}).to_string();
        let document = PolicyDocument::from_json(document.as_bytes()).unwrap();
        Self(Engine::new(&document, 1, Tick::from_nanos(0)))
    }

    /// The rule that refuses, if one does.
    fn check_and_update(&self, second: u64, hits_addend: u32, values: &[(&str, &str)]) -> Option<String> {
        let facts = Facts {
            method: "POST",
            path: "/",
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            headers: &Fields(values),
            claims: &NoClaims,
            model: None,
            service_tier: None,
            tokens: Tokens { input: hits_addend, cached: 0, output: 0 },
        };
        let decision = self.0.admit(Tick::from_nanos(second * 1_000_000_000), &facts);
        let Decision::Refuse(refusal) = decision else { return None };
        Some(refusal.rule.name.clone())
    }
}

const ONE: &[(&str, &str)] = &[("app-id", "1")];
const TWO: &[(&str, &str)] = &[("app-id", "2")];

#[test]
fn a_limit_holds_for_each_value_of_its_variable_and_until_its_seconds_have_passed() {
    let limitador = Limitador::new(&[limit("three", 3, 60, &["app-id"])]);
    for _ in 0..3 {
        assert_eq!(limitador.check_and_update(60, 1, ONE), None);
    }
    assert_eq!(limitador.check_and_update(60, 1, ONE).as_deref(), Some("three"));
    assert_eq!(limitador.check_and_update(60, 1, TWO), None);
    assert_eq!(limitador.check_and_update(119, 1, ONE).as_deref(), Some("three"));
    assert_eq!(limitador.check_and_update(120, 1, ONE), None);
}

#[test]
fn hits_add_what_they_say_and_one_that_does_not_fit_adds_nothing() {
    let limitador = Limitador::new(&[limit("ten", 10, 60, &["app-id"])]);
    assert_eq!(limitador.check_and_update(0, 4, ONE), None);
    assert_eq!(limitador.check_and_update(0, 4, ONE), None);
    assert_eq!(limitador.check_and_update(0, 4, ONE).as_deref(), Some("ten"));
    assert_eq!(limitador.check_and_update(0, 2, ONE), None);
    assert_eq!(limitador.check_and_update(0, 1, ONE).as_deref(), Some("ten"));
}

#[test]
fn of_several_limits_all_are_checked_and_none_is_updated_when_one_refuses() {
    let limits = [limit("minute", 5, 60, &["app-id"]), limit("hour", 8, 3600, &["app-id"])];
    let limitador = Limitador::new(&limits);
    for _ in 0..5 {
        assert_eq!(limitador.check_and_update(0, 1, ONE), None);
    }
    for _ in 0..100 {
        assert_eq!(limitador.check_and_update(1, 1, ONE).as_deref(), Some("minute"));
    }
    for _ in 0..3 {
        assert_eq!(limitador.check_and_update(60, 1, ONE), None, "the hour has counted five");
    }
    assert_eq!(limitador.check_and_update(60, 1, ONE).as_deref(), Some("hour"));
    assert_eq!(limitador.check_and_update(3600, 1, ONE), None);
}

#[test]
fn limits_count_by_their_own_variables_and_no_others() {
    let limits = [limit("user", 2, 60, &["app-id", "user"]), limit("app", 3, 60, &["app-id"])];
    let limitador = Limitador::new(&limits);
    let (ann, bob) = ([("app-id", "1"), ("user", "ann")], [("app-id", "1"), ("user", "bob")]);
    assert_eq!(limitador.check_and_update(0, 1, &ann), None);
    assert_eq!(limitador.check_and_update(0, 1, &ann), None);
    assert_eq!(limitador.check_and_update(0, 1, &ann).as_deref(), Some("user"));
    assert_eq!(limitador.check_and_update(0, 1, &bob), None);
    assert_eq!(limitador.check_and_update(0, 1, &bob).as_deref(), Some("app"));
}
