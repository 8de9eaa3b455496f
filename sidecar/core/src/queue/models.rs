//! Run with `RUSTFLAGS="--cfg loom" cargo test -p tidegate-core --lib --release models`.

use loom::sync::Arc;
use loom::thread;
use tidegate_policy::PriorityClass::Medium;

use super::*;
use crate::concurrency::Bounds;

#[test]
fn a_place_that_comes_free_while_somebody_queues_up_finds_him() {
    loom::model(|| {
        let permits = Arc::new(Permits::new());
        permits.publish(Bounds { reserve: 1, common: 1, medium: 1, low: 1 });
        let queue = Arc::new(Queue::new());
        let held = permits.take(Medium).unwrap();
        let other = {
            let (permits, queue) = (Arc::clone(&permits), Arc::clone(&queue));
            thread::spawn(move || {
                permits.give_back(held);
                if queue.is_occupied() { queue.turns(Tick::default(), Some(&permits), None).len() } else { 0 }
            })
        };
        let deadline = Tick::from_nanos(1);
        let account = Account { class: Medium, tenant: [0; 2], cost: 1 };
        let newcomer = Newcomer { account, deadline };
        let joined = queue.join(Tick::default(), newcomer, 1, &permits);
        let woken = other.join().unwrap();
        assert_eq!(usize::from(matches!(joined, Joined::Go(_))) + woken, 1, "{joined:?}");
    });
}
