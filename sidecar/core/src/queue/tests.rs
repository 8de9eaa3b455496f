use proptest::prelude::*;
use tidegate_policy::PriorityClass::{High, Low, Medium};

use super::*;
use crate::concurrency::Bounds;

fn millis(n: u64) -> Tick {
    Tick::from_nanos(n * 1_000_000)
}

fn permits(reserve: u32, common: u32) -> Permits {
    let permits = Permits::new();
    permits.publish(Bounds { reserve, common, medium: common, low: common });
    permits
}

fn newcomer(class: PriorityClass, tenant: u64, deadline: u64) -> Newcomer {
    let account = Account { class, tenant: [tenant, 0], cost: 1 };
    Newcomer { account, deadline: millis(deadline) }
}

fn join(queue: &Queue, permits: &Permits, newcomer: Newcomer) -> Place {
    match queue.join(millis(0), newcomer, 100, permits) {
        Joined::Waits(place) => place,
        other => panic!("{other:?}"),
    }
}

fn ends(queue: &Queue, turns: Vec<Place>) -> Vec<(Place, End)> {
    turns.into_iter().map(|place| (place, queue.ended(place).unwrap())).collect()
}

#[test]
fn the_highest_class_goes_first_and_one_for_each_place() {
    let (queue, permits) = (Queue::new(), permits(1, 1));
    let taken = [permits.take(High).unwrap(), permits.take(High).unwrap()];
    let low = join(&queue, &permits, newcomer(Low, 1, 900));
    let medium = join(&queue, &permits, newcomer(Medium, 1, 900));
    let high = join(&queue, &permits, newcomer(High, 1, 900));
    assert!(queue.turns(millis(1), Some(&permits), None).is_empty());
    for pool in taken {
        permits.give_back(pool);
    }
    let go = |place, pool| (place, End::Go(Some(pool)));
    let first = ends(&queue, queue.turns(millis(1), Some(&permits), None));
    assert_eq!(first, [go(high, Pool::Reserve), go(medium, Pool::Common)]);
    permits.give_back(Pool::Common);
    permits.publish(Bounds { reserve: 1, common: 1, medium: 1, low: 1 });
    assert_eq!(ends(&queue, queue.turns(millis(1), Some(&permits), None)), [go(low, Pool::Common)]);
    assert!(!queue.is_occupied());
}

#[test]
fn nobody_waits_longer_than_to_his_deadline() {
    let (queue, permits) = (Queue::new(), permits(1, 1));
    permits.take(Medium).unwrap();
    let late = join(&queue, &permits, newcomer(Medium, 1, 500));
    let soon = join(&queue, &permits, newcomer(Medium, 2, 200));
    assert_eq!(queue.next_deadline(), Some(millis(200)));
    assert!(queue.turns(millis(199), Some(&permits), None).is_empty());
    assert_eq!(ends(&queue, queue.turns(millis(200), Some(&permits), None)), [(soon, End::TimedOut)]);
    assert_eq!(ends(&queue, queue.turns(millis(9000), Some(&permits), None)), [(late, End::TimedOut)]);
    assert_eq!((queue.next_deadline(), queue.status().2.timed_out), (None, 2));
}

#[test]
fn a_full_queue_makes_room_for_a_higher_class_and_for_a_tenant_that_has_less() {
    let (queue, permits) = (Queue::new(), permits(1, 1));
    permits.take(Medium).unwrap();
    let greedy: Vec<_> = (0..3).map(|n| join(&queue, &permits, newcomer(Low, 1, 100 + n))).collect();
    let full = |class, tenant| queue.join(millis(0), newcomer(class, tenant, 900), 3, &permits);
    assert_eq!(full(Low, 1), Joined::Full(3));
    let other = full(Low, 2);
    assert!(matches!(other, Joined::Waits(_)), "{other:?}");
    let displaced = End::Displaced { length: 3 };
    assert_eq!(ends(&queue, queue.turns(millis(1), Some(&permits), None)), [(greedy[2], displaced)]);
    assert!(matches!(full(Medium, 3), Joined::Waits(_)));
    assert_eq!(ends(&queue, queue.turns(millis(1), Some(&permits), None)), [(greedy[1], displaced)]);
    assert_eq!(full(Low, 3), Joined::Full(3), "everybody has one");
}

#[test]
fn nobody_is_told_of_the_end_of_a_wait_by_one_who_left_or_has_asked() {
    let (queue, permits) = (Queue::new(), permits(1, 1));
    permits.take(Medium).unwrap();
    let low: Vec<_> = (0..2).map(|n| join(&queue, &permits, newcomer(Low, 1, 100 + n))).collect();
    for (pushed_out, leaves) in [(low[1], true), (low[0], false)] {
        let medium = queue.join(millis(0), newcomer(Medium, 1, 900), 2, &permits);
        assert!(matches!(medium, Joined::Waits(_)), "{medium:?}");
        let end = if leaves { queue.leave(pushed_out) } else { queue.ended(pushed_out) };
        assert_eq!(end, Some(End::Displaced { length: 2 }));
        assert_eq!(queue.turns(millis(1), Some(&permits), None), []);
    }
}

#[test]
fn low_leaves_as_soon_as_its_class_is_refused() {
    let (queue, permits) = (Queue::new(), permits(1, 1));
    permits.take(Medium).unwrap();
    let low = join(&queue, &permits, newcomer(Low, 1, 900));
    let medium = join(&queue, &permits, newcomer(Medium, 1, 900));
    assert_eq!(
        ends(&queue, queue.turns(millis(1), Some(&permits), Some(TierName::Latency))),
        [(low, End::Shed(TierName::Latency))]
    );
    assert_eq!((queue.leave(medium), queue.leave(low)), (None, None));
    assert!(!queue.is_occupied());
}

#[test]
fn everybody_goes_when_nothing_is_limited_any_more() {
    let (queue, permits) = (Queue::new(), permits(1, 1));
    permits.take(Medium).unwrap();
    let place = join(&queue, &permits, newcomer(Medium, 1, 900));
    assert_eq!(ends(&queue, queue.turns(millis(1), None, None)), [(place, End::Go(None))]);
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Arrive(PriorityClass, u64),
    End(usize),
    Leave(usize),
    Time(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let class = || prop_oneof![Just(High), Just(Medium), Just(Low)];
    let event = prop_oneof![
        6 => (class(), 0u64..4).prop_map(|(class, tenant)| Event::Arrive(class, tenant)),
        4 => any::<usize>().prop_map(Event::End),
        1 => any::<usize>().prop_map(Event::Leave),
        1 => (0u64..400).prop_map(Event::Time),
    ];
    proptest::collection::vec(event, 1..300)
}

/// Requests in flight and in the queue, as those who made them see it.
#[derive(Default)]
struct World {
    now: u64,
    running: Vec<Pool>,
    waiting: Vec<(Place, PriorityClass)>,
}

impl World {
    fn take(&mut self, queue: &Queue, turns: Vec<Place>) -> Result<(), TestCaseError> {
        for (place, end) in ends(queue, turns) {
            let known = self.waiting.iter().position(|(waiting, _)| *waiting == place);
            let Some(known) = known else { return Err(TestCaseError::fail("a turn of nobody who waits")) };
            let (_, class) = self.waiting.swap_remove(known);
            if let End::Go(Some(pool)) = end {
                self.running.push(pool);
            }
            let lower = self.waiting.iter().any(|(_, other)| *other < class);
            prop_assert!(
                !matches!(end, End::Displaced { .. }) || !lower,
                "{class:?} yields before a lower class"
            );
        }
        Ok(())
    }
}

const MOST: usize = 5;
const TIMEOUT: u64 = 300;

proptest! {
    #[test]
    fn no_place_is_lost_nobody_waits_beside_a_free_one_and_none_for_ever(events in events()) {
        let (queue, permits) = (Queue::new(), permits(1, 3));
        let mut world = World::default();
        for event in events {
            match event {
                Event::Arrive(class, tenant) => {
                    let direct = queue.may_pass(class).then(|| permits.take(class)).flatten();
                    if let Some(pool) = direct {
                        world.running.push(pool);
                    } else {
                        let newcomer = newcomer(class, tenant, world.now + TIMEOUT);
                        match queue.join(millis(world.now), newcomer, MOST, &permits) {
                            Joined::Go(pool) => world.running.push(pool),
                            Joined::Waits(place) => world.waiting.push((place, class)),
                            Joined::Full(length) => {
                                prop_assert!(length >= MOST as u64);
                                prop_assert!(class == Low || !world.waiting.iter().any(|(_, c)| *c < class));
                            }
                        }
                    }
                }
                Event::End(n) if !world.running.is_empty() => {
                    permits.give_back(world.running.swap_remove(n % world.running.len()));
                }
                Event::Leave(n) if !world.waiting.is_empty() => {
                    let (place, _) = world.waiting.swap_remove(n % world.waiting.len());
                    prop_assert_eq!(queue.leave(place), None);
                }
                Event::End(_) | Event::Leave(_) => {}
                Event::Time(more) => world.now += more,
            }
            let limited = Bounds { reserve: 1, common: 3, medium: 3, low: 2 };
            permits.publish(limited);
            world.take(&queue, queue.turns(millis(world.now), Some(&permits), None))?;
            let used = permits.in_use();
            prop_assert_eq!(used.total() as usize, world.running.len());
            prop_assert!(used.common <= 3 && used.reserve <= 1);
            prop_assert!(world.waiting.len() <= MOST);
            prop_assert_eq!(queue.status().0, world.waiting.len() as u64);
            if let Some(class) = world.waiting.iter().map(|(_, class)| *class).max() {
                prop_assert!(permits.take(class).is_none(), "{class:?} waits beside a free place");
            }
            prop_assert!(queue.next_deadline().is_none_or(|deadline| deadline > millis(world.now)));
        }
        world.take(&queue, queue.turns(millis(world.now + TIMEOUT), Some(&permits), None))?;
        prop_assert!(world.waiting.is_empty() && !queue.is_occupied());
    }
}
