//! The open holds of a bucket.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use super::HoldNumber;

/// Holds of which the same may be given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// The number of its oldest hold.
    pub(super) first: HoldNumber,
    pub(super) open: u64,
    pub(super) refundable_nanos: u64,
}

/// From the oldest on. More than one at a time is rare, and there are many buckets: the first has its place in the bucket itself,
/// which is one part of the memory less to wait for.
pub(super) enum Runs {
    One(Run),
    /// None, where there were never more than one.
    Others(Option<Box<Many>>),
}

pub(super) struct Many(Vec<Run>);

impl Default for Runs {
    fn default() -> Self {
        Self::Others(None)
    }
}

impl Runs {
    #[inline]
    pub(super) fn push(&mut self, run: Run) {
        match self {
            Self::Others(None) => *self = Self::One(run),
            Self::Others(Some(many)) => many.0.push(run),
            Self::One(first) => *self = Self::Others(Some(Box::new(Many(vec![*first, run])))),
        }
    }

    #[inline]
    pub(super) fn truncate(&mut self, length: usize) {
        match self {
            Self::One(_) if length == 0 => *self = Self::default(),
            Self::Others(Some(many)) => many.0.truncate(length),
            Self::One(_) | Self::Others(None) => {}
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        match self {
            Self::Others(Some(many)) if at < many.0.len() => drop(many.0.remove(at)),
            _ => self.truncate(at),
        }
    }
}

impl Deref for Runs {
    type Target = [Run];

    #[inline]
    fn deref(&self) -> &[Run] {
        match self {
            Self::One(run) => std::slice::from_ref(run),
            Self::Others(many) => many.as_ref().map_or(&[], |many| &many.0),
        }
    }
}

impl DerefMut for Runs {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Run] {
        match self {
            Self::One(run) => std::slice::from_mut(run),
            Self::Others(many) => many.as_mut().map_or(&mut [], |many| &mut many.0),
        }
    }
}

impl fmt::Debug for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(open: u64) -> Run {
        Run { first: HoldNumber::after(None), open, refundable_nanos: 0 }
    }

    proptest! {
        #[test]
        fn runs_are_a_list_whatever_is_put_in_and_taken_out(
            steps in prop::collection::vec((0_u8..3, any::<prop::sample::Index>()), 1..40),
        ) {
            let (mut runs, mut list) = (Runs::default(), Vec::new());
            for (n, (step, at)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        runs.push(run(n as u64));
                        list.push(n as u64);
                    }
                    1 => {
                        let length = at.index(list.len() + 1);
                        runs.truncate(length);
                        list.truncate(length);
                    }
                    _ if !list.is_empty() => {
                        let at = at.index(list.len());
                        runs.remove(at);
                        list.remove(at);
                    }
                    _ => {}
                }
                prop_assert!(runs.iter().map(|run| run.open).eq(list.iter().copied()), "{:?}: {:?}", runs, list);
                prop_assert_eq!(runs.iter_mut().count(), list.len());
            }
        }
    }

    #[test]
    fn the_first_takes_no_memory_of_its_own() {
        let mut runs = Runs::default();
        for n in 0..3 {
            runs.push(run(n));
            assert!(matches!(runs, Runs::One(_)));
            runs.remove(0);
        }
        assert_eq!((runs.len(), size_of::<Runs>()), (0, size_of::<Run>()));
    }
}
