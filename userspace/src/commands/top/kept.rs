//! The last of many, shared with whoever looks at them.

use std::{collections::VecDeque, sync::Arc};

/// The last things of a kind.
#[derive(Debug)]
pub struct Kept<T> {
    items: VecDeque<Arc<T>>,
    most: usize,
    /// As they were shown last; none: they have changed since.
    shown: Option<Arc<Vec<Arc<T>>>>,
}

impl<T> Kept<T> {
    /// Keeps so many.
    pub fn new(most: usize) -> Self {
        Self { items: VecDeque::new(), most, shown: None }
    }

    /// Takes one more in.
    pub fn push(&mut self, item: T) {
        if self.items.len() == self.most {
            self.items.pop_front();
        }
        self.items.push_back(Arc::new(item));
        self.shown = None;
    }

    /// Changes those of the last `among` that are meant.
    pub fn change(&mut self, among: usize, is_meant: impl Fn(&T) -> bool, change: impl Fn(&mut T))
    where
        T: Clone,
    {
        let first = self.items.len().saturating_sub(among);
        for item in self.items.range_mut(first..).filter(|item| is_meant(item)) {
            change(Arc::make_mut(item));
            self.shown = None;
        }
    }

    /// All of them, oldest first.
    pub fn shown(&mut self) -> Arc<Vec<Arc<T>>> {
        Arc::clone(self.shown.get_or_insert_with(|| Arc::new(self.items.iter().cloned().collect())))
    }

    /// Those of them that are meant.
    pub fn only(&self, is_meant: impl Fn(&T) -> bool) -> Arc<Vec<Arc<T>>> {
        Arc::new(self.items.iter().filter(|item| is_meant(item)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_stays_as_it_was() {
        let mut kept = Kept::new(3);
        (0..5).for_each(|n| kept.push(n));
        let before = kept.shown();
        assert!(Arc::ptr_eq(&before, &kept.shown()), "nothing has changed");
        kept.change(2, |n| *n == 4, |n| *n = 40);
        kept.change(1, |n| *n == 3, |n| *n = 30);
        let numbers = |shown: &[Arc<i32>]| shown.iter().map(|n| **n).collect::<Vec<_>>();
        assert_eq!(numbers(&before), [2, 3, 4]);
        assert_eq!(numbers(&kept.shown()), [2, 3, 40]);
        assert_eq!(numbers(&kept.only(|n| *n < 4)), [2, 3]);
    }
}
