//! Start-time fair queueing among the tenants of one class.
//!
//! Every tenant has a counter of the cost that was served to it. The next request is that of the waiting tenant with
//! the least, and a tenant that comes back from idling starts where the tenant served last stood, so that it neither
//! catches up on what it did not ask for nor pays for it. What an estimate missed is settled on the counter when the
//! cost is known. This is start-time fair queueing (Goyal, Vin, Cheng 1996) with its tags kept for each tenant instead
//! of each request, the form in which Sheng et al. ("Fairness in Serving Large Language Models", OSDI 2024) use it for
//! tokens as the virtual token counter. Between two tenants that wait all the time the served cost differs by at most
//! twice the largest request, and by what is not settled yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::Tick;

/// Who asks: the hash of what tells tenants apart.
pub(super) type Tenant = [u64; 2];

/// Order within a tenant: who has to be served first, then who came first.
type Turn = (Tick, u64);

/// The waiting requests of one class.
#[derive(Debug, Default)]
pub(super) struct Fair {
    tenants: BTreeMap<Tenant, Account>,
    /// Those with waiting requests, the one with the least cost first.
    backlogged: BTreeSet<(i128, Tenant)>,
    /// The others that are remembered, because they were served more than the virtual time says.
    ahead: BTreeSet<(i128, Tenant)>,
    /// Where the tenant stood that was served last.
    virtual_time: i128,
    length: usize,
}

#[derive(Debug, Default)]
struct Account {
    served: i128,
    /// Cost of each waiting request.
    waiting: BTreeMap<Turn, u64>,
}

impl Fair {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Adds a request.
    pub(super) fn push(&mut self, tenant: Tenant, deadline: Tick, place: u64, cost: u64) {
        let now = self.virtual_time;
        let account =
            self.tenants.entry(tenant).or_insert_with(|| Account { served: now, ..Account::default() });
        if account.waiting.is_empty() {
            self.ahead.remove(&(account.served, tenant));
            account.served = account.served.max(now);
            self.backlogged.insert((account.served, tenant));
        }
        account.waiting.insert((deadline, place), cost);
        self.length += 1;
    }

    /// Takes the request whose turn it is.
    pub(super) fn pop(&mut self) -> Option<u64> {
        let (served, tenant) = self.backlogged.pop_first()?;
        let account = self.tenants.get_mut(&tenant)?;
        let ((_, place), cost) = account.waiting.pop_first()?;
        self.length -= 1;
        self.virtual_time = self.virtual_time.max(served);
        account.served = served.saturating_add(i128::from(cost));
        self.put_back(tenant);
        self.forget();
        Some(place)
    }

    /// Takes a request out that will not be served.
    pub(super) fn remove(&mut self, tenant: Tenant, deadline: Tick, place: u64) {
        let Some(account) = self.tenants.get_mut(&tenant) else { return };
        if account.waiting.remove(&(deadline, place)).is_none() {
            return;
        }
        self.length -= 1;
        if account.waiting.is_empty() {
            self.backlogged.remove(&(account.served, tenant));
            self.put_back(tenant);
            self.forget();
        }
    }

    /// The request that has to make room for others: the last of the tenant that has most waiting.
    pub(super) fn last(&self) -> Option<u64> {
        let longest = self.tenants.values().max_by_key(|account| account.waiting.len())?;
        longest.waiting.last_key_value().map(|((_, place), _)| *place)
    }

    /// The most requests that one tenant has waiting, and those of this one.
    pub(super) fn shares(&self, tenant: Tenant) -> (usize, usize) {
        let most = self.tenants.values().map(|account| account.waiting.len()).max().unwrap_or(0);
        (most, self.tenants.get(&tenant).map_or(0, |account| account.waiting.len()))
    }

    /// Corrects what was served to a tenant, when its cost turned out to be another than was estimated. Of a tenant
    /// that nothing is remembered of there is nothing to correct.
    pub(super) fn settle(&mut self, tenant: Tenant, estimate: u64, cost: u64) {
        let Some(account) = self.tenants.get_mut(&tenant) else { return };
        self.backlogged.remove(&(account.served, tenant));
        self.ahead.remove(&(account.served, tenant));
        account.served = account.served.saturating_add(i128::from(cost) - i128::from(estimate));
        self.put_back(tenant);
        self.forget();
    }

    fn put_back(&mut self, tenant: Tenant) {
        let Some(account) = self.tenants.get(&tenant) else { return };
        let list = if account.waiting.is_empty() { &mut self.ahead } else { &mut self.backlogged };
        list.insert((account.served, tenant));
    }

    /// Tenants without waiting requests whom the virtual time has reached are like new ones. With nobody waiting it
    /// reaches all.
    fn forget(&mut self) {
        if self.backlogged.is_empty()
            && let Some((served, _)) = self.ahead.last()
        {
            self.virtual_time = self.virtual_time.max(*served);
        }
        while let Some(&(served, tenant)) = self.ahead.first()
            && served <= self.virtual_time
        {
            self.ahead.pop_first();
            self.tenants.remove(&tenant);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
