//! Tells requests that wait in the queue that their wait is over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_core::Place;
use tokio::sync::Notify;

/// Those who wait, by their place.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<Place, Arc<Notify>>>);

impl Turns {
    /// Waits at a place from now on. What happened to it before has to be asked.
    pub fn enter(&self, place: Place) -> Arc<Notify> {
        Arc::clone(self.lock().entry(place).or_default())
    }

    /// Waits there no longer.
    pub fn leave(&self, place: Place) {
        self.lock().remove(&place);
    }

    /// The wait at these places is over. One where nobody waits yet, or any more, needs no call.
    pub fn call(&self, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        let waiting = self.lock();
        for notify in places.iter().filter_map(|place| waiting.get(place)) {
            notify.notify_one();
        }
    }

    /// Nothing can be half done in there.
    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
