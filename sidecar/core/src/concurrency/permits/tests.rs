use proptest::prelude::*;
use tidegate_policy::PriorityClass::{self, High, Low, Medium};

use super::*;

fn bounds(reserve: u32, common: u32, medium: u32, low: u32) -> Bounds {
    Bounds { reserve, common, medium, low }
}

fn fill(permits: &Permits, class: PriorityClass) -> Vec<Pool> {
    std::iter::from_fn(|| permits.take(class)).collect()
}

#[test]
fn high_uses_its_reserve_and_the_common_share() {
    let permits = Permits::new();
    permits.publish(bounds(2, 8, 8, 7));
    assert_eq!(fill(&permits, Medium), [Pool::Common; 8]);
    assert_eq!(fill(&permits, High), [Pool::Reserve; 2]);
    permits.give_back(Pool::Common);
    assert_eq!(permits.take(High), Some(Pool::Common));
    assert_eq!(permits.in_use(), InUse { reserve: 2, common: 8 });
}

#[test]
fn low_finds_nothing_from_the_moment_on_that_high_does_not_until_high_would() {
    let permits = Permits::new();
    permits.publish(bounds(1, 3, 3, 2));
    fill(&permits, High);
    (0..4).for_each(|n| permits.give_back(if n == 0 { Pool::Reserve } else { Pool::Common }));
    assert_eq!(permits.take(Low), None, "high was turned away a moment ago");
    permits.publish(bounds(1, 3, 3, 2));
    assert_eq!(fill(&permits, Low).len(), 2);
}

#[test]
fn the_peak_is_the_most_at_once_since_it_was_asked_for() {
    let permits = Permits::new();
    permits.publish(bounds(1, 9, 9, 8));
    let pools: Vec<_> = (0..5).filter_map(|_| permits.take(Medium)).collect();
    pools[..3].iter().for_each(|pool| permits.give_back(*pool));
    assert_eq!((permits.peak(), permits.peak()), (5, 2));
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Take(PriorityClass),
    GiveBack(usize),
    Publish(Bounds),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let class = prop_oneof![Just(High), Just(Medium), Just(Low)];
    let publish = (0u32..4, 1u32..8, 1u32..8, 0u32..8).prop_map(|(reserve, common, medium, low)| {
        let medium = medium.min(common);
        Event::Publish(bounds(reserve.max(1), common, medium, low.min(medium)))
    });
    let event = prop_oneof![6 => class.prop_map(Event::Take), 4 => any::<usize>().prop_map(Event::GiveBack), 1 => publish];
    proptest::collection::vec(event, 1..200)
}

proptest! {
    #[test]
    fn where_low_finds_a_place_every_higher_class_does_and_nobody_exceeds_the_bounds(events in events()) {
        let permits = Permits::new();
        let mut in_force = bounds(1, 4, 4, 3);
        permits.publish(in_force);
        let mut held = Vec::new();
        for event in events {
            match event {
                Event::Take(class) => {
                    let before = permits.in_use();
                    let finds = |class| permits.pool(class, before).is_some();
                    prop_assert!(!finds(Low) || finds(Medium) && finds(High));
                    prop_assert!(!finds(Medium) || finds(High));
                    if let Some(pool) = permits.take(class) {
                        let used = permits.in_use();
                        prop_assert!(used.reserve <= in_force.reserve.max(before.reserve));
                        prop_assert!(used.common <= in_force.common.max(before.common));
                        prop_assert!(class == High || pool == Pool::Common);
                        held.push(pool);
                    } else if class == High {
                        prop_assert!(!finds(Low));
                    }
                }
                Event::GiveBack(n) if !held.is_empty() => permits.give_back(held.swap_remove(n % held.len())),
                Event::GiveBack(_) => {}
                Event::Publish(bounds) => {
                    in_force = bounds;
                    permits.publish(bounds);
                }
            }
            prop_assert_eq!(permits.in_use().total() as usize, held.len());
        }
        held.drain(..).for_each(|pool| permits.give_back(pool));
        prop_assert_eq!(permits.in_use().total(), 0);
    }
}
