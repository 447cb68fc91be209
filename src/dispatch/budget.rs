//! A number of places that many wait for, and that can be changed while they do.
//!
//! Promises: no more places are taken than there are, but for those that were taken when the number
//! was lowered: each that comes back then goes, until the debt is paid, before anybody else gets it.
//! What can go wrong: nothing; who asks for more than there ever will be waits until its own time is
//! over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug)]
pub(crate) struct Budget {
    places: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    size: usize,
    /// Places that are taken and have to go when they come back.
    owed: usize,
}

/// Places that are taken, given back on drop.
#[derive(Debug)]
pub(crate) struct Room {
    budget: Arc<Budget>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(size)), state: Mutex::new(State { size, owed: 0 }) })
    }

    /// How many there are, taken or not.
    pub(crate) fn size(&self) -> usize {
        self.state().size
    }

    /// How many are free.
    pub(crate) fn available(&self) -> usize {
        self.places.available_permits()
    }

    /// From now on there are `size`.
    pub(crate) fn resize(&self, size: usize) {
        let mut state = self.state();
        if size >= state.size {
            let more = size - state.size;
            let paid = more.min(state.owed);
            state.owed -= paid;
            self.places.add_permits(more - paid);
        } else {
            state.owed += state.size - size;
            self.settle(&mut state);
        }
        state.size = size;
    }

    /// Waits for `places`, in the order of asking.
    pub(crate) async fn take(self: &Arc<Self>, places: u32) -> Room {
        self.settle(&mut self.state());
        match Arc::clone(&self.places).acquire_many_owned(places).await {
            Ok(permit) => Room { budget: Arc::clone(self), permit: Some(permit) },
            // Nobody closes it.
            Err(_) => std::future::pending().await,
        }
    }

    fn give_back(&self, mut permit: OwnedSemaphorePermit) {
        let mut state = self.state();
        let paid = state.owed.min(permit.num_permits());
        if let Some(paid) = permit.split(paid) {
            state.owed -= paid.num_permits();
            paid.forget();
        }
    }

    /// Places that came back on another way, as from somebody who gave up waiting, go too.
    fn settle(&self, state: &mut State) {
        if state.owed > 0 {
            state.owed -= self.places.forget_permits(state.owed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// How many places.
    pub(crate) fn places(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Gives back all places but `places`.
    pub(crate) fn keep(&mut self, places: usize) {
        let Some(permit) = &mut self.permit else { return };
        if let Some(rest) = permit.num_permits().checked_sub(places).and_then(|rest| permit.split(rest)) {
            self.budget.give_back(rest);
        }
    }

    /// Takes in other places of the same budget.
    pub(crate) fn merge(&mut self, mut other: Self) {
        match (&mut self.permit, other.permit.take()) {
            (Some(mine), Some(more)) => mine.merge(more),
            (mine, Some(more)) => *mine = Some(more),
            (_, None) => {}
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.budget.give_back(permit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn at_once(budget: &Arc<Budget>, places: u32) -> Option<Room> {
        tokio::time::timeout(Duration::ZERO, budget.take(places)).await.ok()
    }

    #[tokio::test]
    async fn a_lowered_number_holds_as_soon_as_what_was_taken_comes_back() {
        let budget = Budget::new(10);
        let (six, three) = (budget.take(6).await, budget.take(3).await);
        budget.resize(4);
        assert_eq!((budget.size(), budget.available()), (4, 0));
        drop(three);
        assert!(at_once(&budget, 1).await.is_none(), "six are taken, and there are four");
        drop(six);
        assert_eq!(budget.available(), 4);
        assert!(at_once(&budget, 5).await.is_none());
        assert!(at_once(&budget, 4).await.is_some());
    }

    #[tokio::test]
    async fn who_waits_does_not_get_what_is_owed() {
        let budget = Budget::new(2);
        let (first, second) = (budget.take(1).await, budget.take(1).await);
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.take(1).await }
        });
        tokio::task::yield_now().await;
        budget.resize(1);
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        drop(waiting.await.unwrap());
        assert_eq!(budget.available(), 1);
    }

    #[tokio::test]
    async fn raising_pays_the_debt_first() {
        let budget = Budget::new(4);
        let four = budget.take(4).await;
        budget.resize(1);
        budget.resize(6);
        assert_eq!(budget.available(), 2);
        drop(four);
        assert_eq!(budget.available(), 6);
        budget.resize(0);
        assert_eq!(budget.available(), 0);
    }
}
