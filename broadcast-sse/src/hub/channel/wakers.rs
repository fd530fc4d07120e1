use std::sync::Arc;

use slab::Slab;

use crate::hub::Waker;

/// The wakers of a channel's listeners. Most channels have none or one, and use no memory for more.
#[derive(Default)]
pub(super) enum Wakers {
    /// Nobody listens.
    #[default]
    None,
    /// One, at place 0.
    One(Arc<dyn Waker>),
    /// Several, or the last one of several.
    Many(Box<Slab<Arc<dyn Waker>>>),
}

impl Wakers {
    /// Adds a waker and returns its place.
    pub(super) fn insert(&mut self, waker: Arc<dyn Waker>) -> usize {
        match std::mem::take(self) {
            Self::None => {
                *self = Self::One(waker);
                0
            }
            Self::One(first) => {
                let mut many = Slab::with_capacity(2);
                many.insert(first);
                let place = many.insert(waker);
                *self = Self::Many(Box::new(many));
                place
            }
            Self::Many(mut many) => {
                let place = many.insert(waker);
                *self = Self::Many(many);
                place
            }
        }
    }

    /// Removes the waker at this place.
    pub(super) fn remove(&mut self, place: usize) {
        match self {
            Self::Many(many) if many.len() > 1 => {
                many.remove(place);
            }
            _ => *self = Self::None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Notifies all of them.
    pub(super) fn notify(&self) {
        match self {
            Self::None => {}
            Self::One(waker) => waker.notify(),
            Self::Many(many) => many.iter().for_each(|(_, waker)| waker.notify()),
        }
    }
}
