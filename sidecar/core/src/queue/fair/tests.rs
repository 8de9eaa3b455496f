use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn at(n: u64) -> Tick {
    Tick::from_nanos(n)
}

fn tenant(n: u64) -> Tenant {
    [n, n]
}

#[test]
fn tenants_take_turns_by_cost_and_not_by_count() {
    let mut fair = Fair::default();
    for n in 0..12 {
        fair.push(tenant(1), at(n), n, 1);
        fair.push(tenant(2), at(n), 100 + n, 4);
    }
    let served: Vec<_> = (0..10).filter_map(|_| fair.pop()).collect();
    assert_eq!(served.iter().filter(|place| **place < 100).count(), 8, "{served:?}");
}

#[test]
fn who_comes_back_from_idling_does_not_catch_up() {
    let mut fair = Fair::default();
    for n in 0..100 {
        fair.push(tenant(1), at(n), n, 1);
    }
    (0..50).for_each(|_| assert!(fair.pop().is_some()));
    for n in 100..200 {
        fair.push(tenant(2), at(n), n, 1);
    }
    let served: Vec<_> = (0..20).filter_map(|_| fair.pop()).collect();
    assert_eq!(served.iter().filter(|place| **place < 100).count(), 10, "{served:?}");
}

#[test]
fn within_a_tenant_the_earliest_deadline_goes_first_and_the_last_one_yields() {
    let mut fair = Fair::default();
    for (place, deadline) in [(0, 30), (1, 10), (2, 20)] {
        fair.push(tenant(1), at(deadline), place, 1);
    }
    assert_eq!((fair.last(), fair.pop(), fair.pop()), (Some(0), Some(1), Some(2)));
}

#[test]
fn nothing_is_remembered_of_tenants_once_nobody_waits() {
    let mut fair = Fair::default();
    for n in 0..1000 {
        fair.push(tenant(n), at(0), n, n);
    }
    while fair.pop().is_some() {}
    assert_eq!((fair.tenants.len(), fair.ahead.len(), fair.len()), (0, 0, 0));
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Arrive { tenant: u64, cost: u64 },
    Serve,
    Leave { tenant: u64 },
    Settle { tenant: u64, cost: u64 },
}

const LARGEST: u64 = 100;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let tenant = 0u64..4;
    let event = prop_oneof![
        4 => (tenant.clone(), 1..=LARGEST).prop_map(|(tenant, cost)| Event::Arrive { tenant, cost }),
        4 => Just(Event::Serve),
        1 => tenant.clone().prop_map(|tenant| Event::Leave { tenant }),
        1 => (tenant, 1..=LARGEST).prop_map(|(tenant, cost)| Event::Settle { tenant, cost }),
    ];
    proptest::collection::vec(event, 1..400)
}

/// Two tenants that always have something waiting, while others come and go.
struct Pair {
    fair: Fair,
    lines: [VecDeque<(u64, u64)>; 4],
    served: [i128; 4],
    /// Of the requests that were served and not settled.
    unsettled: [VecDeque<u64>; 4],
    next: u64,
}

impl Pair {
    fn arrive(&mut self, who: u64, cost: u64) {
        self.fair.push(tenant(who), at(self.next), self.next, cost);
        self.lines[who as usize].push_back((self.next, cost));
        self.next += 1;
    }

    fn serve(&mut self) {
        let Some(place) = self.fair.pop() else { return };
        let who = self.lines.iter().position(|line| line.front().is_some_and(|(p, _)| *p == place)).unwrap();
        let (_, cost) = self.lines[who].pop_front().unwrap();
        self.served[who] += i128::from(cost);
        self.unsettled[who].push_back(cost);
    }

    /// Both of the pair have two requests waiting at least.
    fn top_up(&mut self) {
        for who in 0..2 {
            while self.lines[who].len() < 2 {
                self.arrive(who as u64, 1 + self.next * 37 % LARGEST);
            }
        }
    }
}

proptest! {
    #[test]
    fn backlogged_tenants_differ_in_served_cost_by_at_most_twice_the_largest_request(events in events()) {
        let mut pair = Pair {
            fair: Fair::default(),
            lines: Default::default(),
            served: [0; 4],
            unsettled: Default::default(),
            next: 0,
        };
        pair.top_up();
        for event in events {
            match event {
                Event::Arrive { tenant, cost } => pair.arrive(tenant, cost),
                Event::Serve => pair.serve(),
                Event::Leave { tenant: who } if who >= 2 => {
                    if let Some((place, _)) = pair.lines[who as usize].pop_back() {
                        pair.fair.remove(tenant(who), at(place), place);
                    }
                }
                Event::Leave { .. } => {}
                Event::Settle { tenant: who, cost } => {
                    if let Some(estimate) = pair.unsettled[who as usize].pop_front() {
                        pair.fair.settle(tenant(who), estimate, cost);
                        pair.served[who as usize] += i128::from(cost) - i128::from(estimate);
                    }
                }
            }
            pair.top_up();
            let unsettled: u64 = pair.unsettled[..2].iter().flatten().map(|_| LARGEST).sum();
            let bound = i128::from(2 * LARGEST + unsettled);
            let difference = (pair.served[0] - pair.served[1]).abs();
            prop_assert!(difference <= bound, "{difference} over {bound}");
        }
        prop_assert_eq!(pair.fair.len(), pair.lines.iter().map(VecDeque::len).sum::<usize>());
    }

    #[test]
    fn with_costs_known_in_advance_the_bound_is_twice_the_largest_request_at_every_instant(
        costs in proptest::collection::vec((1..=LARGEST, 1..=LARGEST), 1..200),
    ) {
        let mut fair = Fair::default();
        let mut served = [0i128; 2];
        for (n, (one, other)) in costs.iter().enumerate() {
            fair.push(tenant(0), at(0), 2 * n as u64, *one);
            fair.push(tenant(1), at(0), 2 * n as u64 + 1, *other);
        }
        let mut left = [costs.len(); 2];
        while left.iter().all(|left| *left > 0) {
            let place = fair.pop().unwrap() as usize;
            let (one, other) = costs[place / 2];
            served[place % 2] += i128::from([one, other][place % 2]);
            left[place % 2] -= 1;
            prop_assert!((served[0] - served[1]).abs() <= i128::from(2 * LARGEST));
        }
    }
}
