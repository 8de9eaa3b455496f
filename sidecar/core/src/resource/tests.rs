use proptest::prelude::*;

use super::*;

fn limiter(json: &str) -> ResourceLimiter {
    ResourceLimiter::new(&serde_json::from_str(json).unwrap(), 1, Tick::from_nanos(0))
}

const CLUSTER: &str = r#"{"units": {"a100": 20, "h100": 40, "gpuMemoryGiB": 0.5, "cpu": 1, "token": 0.001},
    "request": 100, "tenant": {"algorithm": "concurrency", "limit": 120},
    "global": {"algorithm": "concurrency", "limit": 200}}"#;

fn second(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000_000)
}

#[test]
fn two_a100_are_forty_units_and_amounts_add_up() {
    let limiter = limiter(CLUSTER);
    assert_eq!(limiter.units(&[("a100", 2.0)]), Ok(Units::new(40.0)));
    let mixed = limiter.units(&[("h100", 1.0), ("gpuMemoryGiB", 8.0), ("cpu", 0.25), ("token", 1500.0)]);
    assert_eq!(mixed, Ok(Units::new(45.75)));
    assert_eq!(limiter.units(&[("tpu", 1.0)]), Err(UnknownResource("tpu".to_owned())));
}

#[test]
fn a_request_has_to_fit_itself_its_tenant_and_all() {
    let limiter = limiter(CLUSTER);
    let ask = |tenant: &[u8], units| limiter.acquire(second(1), tenant, Units::new(units));
    let refused = ask(b"ann", 100.5).unwrap_err();
    assert_eq!((refused.level, refused.retry_after), (Level::Request, Duration::MAX));
    let ann = ask(b"ann", 100.0).unwrap();
    let refused = ask(b"ann", 40.0).unwrap_err();
    assert_eq!(refused.level, Level::Tenant);
    assert!((refused.observed - 140.0).abs() < 1e-9 && (refused.limit - 120.0).abs() < 1e-9);
    let bob = ask(b"bob", 100.0).unwrap();
    assert_eq!(ask(b"cid", 0.001).unwrap_err().level, Level::Global);
    limiter.release(second(2), ann, None);
    limiter.release(second(2), bob, None);
    assert!(ask(b"cid", 100.0).is_ok(), "a refusal has occupied nothing");
}

#[test]
fn what_flows_is_settled_and_a_caller_that_waits_as_told_is_served() {
    let limiter = limiter(
        r#"{"units": {"token": 0.01}, "tenant": {"algorithm": {"tokenBucket": {"burst": 10}}, "limit": 10,
            "windowMillis": 1000}}"#,
    );
    let tokens = |n| limiter.units(&[("token", n)]).unwrap();
    let lease = limiter.acquire(second(1), b"ann", tokens(1000.0)).unwrap();
    let refused = limiter.acquire(second(1), b"ann", tokens(500.0)).unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_millis(500));
    limiter.release(second(1), lease, Some(tokens(1200.0)));
    let refused = limiter.acquire(second(1), b"ann", tokens(500.0)).unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_millis(700), "the rest is debt");
    let early = Tick::from_nanos((second(1) + refused.retry_after).as_nanos() - 1);
    assert!(limiter.acquire(early, b"ann", tokens(500.0)).is_err());
    let lease = limiter.acquire(second(1) + refused.retry_after, b"ann", tokens(500.0)).unwrap();
    limiter.release(second(2), lease, None);
}

proptest! {
    #[test]
    fn no_level_is_ever_exceeded(
        steps in proptest::collection::vec((0u8..3, 0.0f64..60.0, any::<bool>()), 1..200),
    ) {
        let limiter = limiter(CLUSTER);
        let mut leases: Vec<(u8, Units, Lease)> = Vec::new();
        for (tenant, units, give_back) in steps {
            if give_back && !leases.is_empty() {
                limiter.release(second(1), leases.remove(0).2, None);
            }
            let units = Units::new(units);
            if let Ok(lease) = limiter.acquire(second(1), &[tenant], units) {
                leases.push((tenant, units, lease));
            }
            let sum = |of: Option<u8>| {
                leases.iter().filter(|l| of.is_none_or(|of| of == l.0)).map(|l| l.1.get()).sum::<f64>()
            };
            prop_assert!(sum(None) <= 200.0 + 1e-6);
            prop_assert!((0..3).all(|tenant| sum(Some(tenant)) <= 120.0 + 1e-6));
        }
    }

    #[test]
    fn no_amount_is_too_much_to_be_counted(amount in any::<f64>()) {
        let units = limiter(CLUSTER).units(&[("a100", amount)]).unwrap();
        prop_assert!(units.get() >= 0.0 && units.get() <= 4_294_968.0);
    }
}
