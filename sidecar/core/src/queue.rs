//! Where requests wait that find no place in flight: bounded, by class, and fair among the tenants of a class.
//!
//! Whoever gives a place back lets the next one in: the highest class first, within it the tenant that was served
//! least, within that the earliest deadline. Only those who queue take the lock. Others read one word, which says
//! whether anybody waits, and of which class at most.

mod fair;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use crossbeam_utils::CachePadded;
use tidegate_policy::PriorityClass;
use tidegate_policy::report::TierName;

use crate::Tick;
use crate::concurrency::{Permits, Pool, Waits};
use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering::SeqCst, in_total_order};
use fair::Fair;

/// A place in the queue, known by its number. When the wait there is over, somebody's `complete`, `cancel`, `leave` or
/// `tick` returns it, for [`Engine::resume`](crate::Engine::resume) to be called by whoever waits there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// How a wait ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With a place in flight; without one where nothing limits them any more.
    Go(Option<Pool>),
    /// It took too long.
    TimedOut,
    /// It had to make room for others.
    Displaced { length: u64 },
    /// Its class is refused by now, by this tier.
    Shed(TierName),
}

/// All that wait.
#[derive(Debug)]
pub(crate) struct Queue {
    /// 0: nobody waits. Else one more than the highest class that does.
    top: CachePadded<AtomicU32>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    classes: [Fair; 3],
    deadlines: BTreeSet<(Tick, u64)>,
    /// Those whose wait is over, and how, until they ask.
    ended: BTreeMap<u64, End>,
    /// Of those, the ones who have to be told yet.
    turns: Vec<Place>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    class: PriorityClass,
    tenant: [u64; 2],
    since: Tick,
    deadline: Tick,
}

/// Requests so far, by how their wait ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) admitted: u64,
    pub(crate) timed_out: u64,
    pub(crate) evicted: u64,
    pub(crate) refused: u64,
}

/// Whose request it is, and what it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) class: PriorityClass,
    pub(crate) tenant: [u64; 2],
    pub(crate) cost: u64,
}

/// Who wants to wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newcomer {
    pub(crate) account: Account,
    pub(crate) deadline: Tick,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// A place in flight had come free.
    Go(Pool),
    /// It waits.
    Waits(Place),
    /// So many wait already.
    Full(u64),
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self { top: CachePadded::new(AtomicU32::new(0)), inner: Mutex::new(Inner::default()) }
    }

    /// Whether anybody waits, or a turn was not handed out yet.
    #[inline]
    pub(crate) fn is_occupied(&self) -> bool {
        in_total_order();
        self.top.load(SeqCst) > 0
    }

    /// Whether nobody waits whom a request of this class must not overtake.
    #[inline]
    pub(crate) fn may_pass(&self, class: PriorityClass) -> bool {
        self.top.load(SeqCst) <= rank(class)
    }

    /// Waits at the end of its tenant's line, unless there is a place in flight after all, or too many wait. A higher
    /// class pushes out the last of a lower one, and a tenant the last of another that has more waiting than itself.
    pub(crate) fn join(&self, now: Tick, newcomer: Newcomer, most: usize, permits: &Permits) -> Joined {
        let mut inner = self.lock();
        if inner.entries.len() >= most && !inner.make_room(newcomer.account) {
            inner.counts.refused += 1;
            return Joined::Full(inner.entries.len() as u64);
        }
        let place = inner.push(now, newcomer);
        // From here on whoever gives a place back sees that somebody waits; one that came free before is seen here.
        self.publish(&inner);
        in_total_order();
        inner.dispatch(permits);
        let joined = match inner.heard(place) {
            Some(End::Go(Some(pool))) => Joined::Go(pool),
            _ => Joined::Waits(place),
        };
        self.publish(&inner);
        joined
    }

    /// Ends the waits that are over, and says whose: of those for whom there is a place in flight now, those whose time is up, and all
    /// low ones when a tier sheds them. Without `permits` there is a place for all.
    #[cold]
    pub(crate) fn turns(&self, now: Tick, permits: Option<&Permits>, shed: Option<TierName>) -> Vec<Place> {
        let mut inner = self.lock();
        inner.expire(now);
        if let Some(tier) = shed {
            inner.shed(tier);
        }
        match permits {
            Some(permits) => inner.dispatch(permits),
            None => inner.let_all_go(),
        }
        let turns = std::mem::take(&mut inner.turns);
        self.publish(&inner);
        turns
    }

    /// How the wait at a place has ended, if it has. The place is nobody's from then on.
    pub(crate) fn ended(&self, place: Place) -> Option<End> {
        let mut inner = self.lock();
        let end = inner.heard(place);
        self.publish(&inner);
        end
    }

    /// Gives a place up. Some: its wait had ended like that already.
    pub(crate) fn leave(&self, place: Place) -> Option<End> {
        let mut inner = self.lock();
        inner.take(place.0);
        let end = inner.heard(place);
        self.publish(&inner);
        end
    }

    /// A request of which `account` was an estimate has cost so much.
    #[cold]
    pub(crate) fn settle(&self, account: Account, cost: u64) {
        self.lock().classes[index(account.class)].settle(account.tenant, account.cost, cost);
    }

    /// The first instant at which somebody's time is up.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.lock().deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// How many wait, and how many did so in vain.
    pub(crate) fn waits(&self) -> Waits {
        let inner = self.lock();
        Waits { waiting: inner.entries.len() as u64, in_vain: inner.counts.timed_out }
    }

    /// How many wait, since when the first of them, and how it went with the others.
    pub(crate) fn status(&self) -> (u64, Option<Tick>, Counts) {
        let inner = self.lock();
        let oldest = inner.entries.values().map(|entry| entry.since).min();
        (inner.entries.len() as u64, oldest, inner.counts)
    }

    fn publish(&self, inner: &Inner) {
        let classes = [PriorityClass::High, PriorityClass::Medium, PriorityClass::Low];
        let top = classes.into_iter().find(|class| inner.classes[index(*class)].len() > 0);
        let undelivered = u32::from(!inner.turns.is_empty());
        self.top.store(top.map_or(undelivered, |class| rank(class) + 1), SeqCst);
    }

    /// A panic while it was held leaves at worst a request that times out, so it is used on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, now: Tick, newcomer: Newcomer) -> Place {
        let Newcomer { account: Account { class, tenant, cost }, deadline } = newcomer;
        let place = self.next;
        self.next += 1;
        self.entries.insert(place, Entry { class, tenant, since: now, deadline });
        self.deadlines.insert((deadline, place));
        self.classes[index(class)].push(tenant, deadline, place, cost);
        Place(place)
    }

    /// Takes a request out, wherever it stands.
    fn take(&mut self, place: u64) -> Option<Entry> {
        let entry = self.entries.remove(&place)?;
        self.deadlines.remove(&(entry.deadline, place));
        self.classes[index(entry.class)].remove(entry.tenant, entry.deadline, place);
        Some(entry)
    }

    /// How a wait has ended, for whoever waited there. He need not be told any more.
    fn heard(&mut self, place: Place) -> Option<End> {
        let end = self.ended.remove(&place.0)?;
        self.turns.retain(|turn| *turn != place);
        Some(end)
    }

    fn end(&mut self, place: u64, end: End) {
        if self.take(place).is_some() {
            match end {
                End::TimedOut => self.counts.timed_out += 1,
                End::Displaced { .. } | End::Shed(_) => self.counts.evicted += 1,
                End::Go(_) => self.counts.admitted += 1,
            }
            self.tell(place, end);
        }
    }

    /// Pushes somebody out for the newcomer, if anybody has to yield to him.
    fn make_room(&mut self, account: Account) -> bool {
        let length = self.entries.len() as u64;
        let lower = [PriorityClass::Low, PriorityClass::Medium].into_iter().filter(|c| *c < account.class);
        let victim = lower.into_iter().find_map(|class| self.classes[index(class)].last()).or_else(|| {
            let own = &self.classes[index(account.class)];
            let (most, mine) = own.shares(account.tenant);
            (most > mine + 1).then(|| own.last()).flatten()
        });
        let Some(victim) = victim else { return false };
        self.end(victim, End::Displaced { length });
        true
    }

    fn expire(&mut self, now: Tick) {
        while let Some(&(deadline, place)) = self.deadlines.first()
            && deadline <= now
        {
            self.end(place, End::TimedOut);
        }
    }

    fn shed(&mut self, tier: TierName) {
        while let Some(place) = self.classes[index(PriorityClass::Low)].last() {
            self.end(place, End::Shed(tier));
        }
    }

    /// Lets in as many as there are places for. Where the highest class finds none, a lower one would not either.
    fn dispatch(&mut self, permits: &Permits) {
        for class in [PriorityClass::High, PriorityClass::Medium, PriorityClass::Low] {
            while self.classes[index(class)].len() > 0 {
                let Some(pool) = permits.take(class) else { return };
                match self.classes[index(class)].pop() {
                    Some(place) => self.go(place, Some(pool)),
                    None => permits.give_back(pool),
                }
            }
        }
    }

    fn let_all_go(&mut self) {
        for class in [PriorityClass::High, PriorityClass::Medium, PriorityClass::Low] {
            while let Some(place) = self.classes[index(class)].pop() {
                self.go(place, None);
            }
        }
    }

    fn go(&mut self, place: u64, pool: Option<Pool>) {
        if let Some(entry) = self.entries.remove(&place) {
            self.deadlines.remove(&(entry.deadline, place));
        }
        self.counts.admitted += 1;
        self.tell(place, End::Go(pool));
    }

    fn tell(&mut self, place: u64, end: End) {
        self.ended.insert(place, end);
        self.turns.push(Place(place));
    }
}

const fn index(class: PriorityClass) -> usize {
    rank(class) as usize
}

const fn rank(class: PriorityClass) -> u32 {
    match class {
        PriorityClass::Low => 0,
        PriorityClass::Medium => 1,
        PriorityClass::High => 2,
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
