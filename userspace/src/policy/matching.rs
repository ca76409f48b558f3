//! Whether a rule is for a verdict.

use septwatch_common::Status;
use wildmatch::WildMatch;

use super::{
    file::{Confidence, Rule, Select, Selector},
    subject::Subject,
};
use crate::model::verdict::Verdict;

/// Whether something is for a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It is not.
    No,
    /// It cannot be told, because something about the TD is not known: it is not followed.
    Undecided,
    /// It is.
    Yes,
}

impl From<bool> for Fit {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

impl Rule {
    /// Whether it is for this verdict, its rate aside.
    pub fn fits(&self, verdict: &Verdict, subject: &Subject) -> Fit {
        let failed = verdict.failed;
        let leaf = failed.and_then(|failed| failed.leaf);
        let certain = verdict.suspect.is_certain();
        let about = self.violations & 1 << verdict.violation as u64 != 0
            && (self.leaves == 0
                || leaf.is_some_and(|leaf| self.leaves & 1_u64.checked_shl(leaf as u32).unwrap_or(0) != 0))
            && (self.statuses.is_empty() || failed.is_some_and(|failed| self.names(failed.status)))
            && match self.confidence {
                Confidence::Any => true,
                Confidence::Certain => certain,
                Confidence::Suspect => !certain,
            };
        if !about {
            return Fit::No;
        }
        self.td.as_ref().map_or(Fit::Yes, |td| td.fits(subject))
    }

    fn names(&self, status: Status) -> bool {
        self.statuses.contains(&status.without_operand())
    }
}

impl Select {
    /// Whether it is for this TD.
    pub fn fits(&self, subject: &Subject) -> Fit {
        let own = self.own.fits(subject);
        match self.tags.iter().map(|(_, selector)| selector.fits(subject)).max() {
            Some(tags) => own.min(tags),
            None => own,
        }
    }
}

impl Selector {
    /// Whether it is for this TD.
    pub fn fits(&self, subject: &Subject) -> Fit {
        let parts =
            [(&self.name, &subject.name), (&self.cgroup, &subject.cgroup), (&self.uuid, &subject.uuid)];
        let one = |(glob, text): (&Option<WildMatch>, &Option<String>)| match (glob, text) {
            (None, _) => Fit::Yes,
            (Some(_), None) => Fit::Undecided,
            (Some(glob), Some(text)) => Fit::from(glob.matches(text)),
        };
        parts.into_iter().map(one).min().unwrap_or(Fit::Yes)
    }
}

#[cfg(test)]
mod tests;
