//! Frame by frame: what the module's probe saw freed and reused, and what septwatch says of it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::oracle::Finding;
use super::scenario::Expectation;

/// The frames that somebody saw freed and reused while a TD held them.
pub struct Frames {
    pub freed: BTreeSet<u64>,
    reused: BTreeSet<u64>,
    /// Of the freed, those of which the module only waited for the writing back: their reuse it does not tell.
    unflushed: BTreeSet<u64>,
}

impl Frames {
    /// By the module's record.
    pub fn of_module(text: &str) -> Self {
        let frames = |head: &str| {
            let lines = text.lines().filter(|line| line.starts_with(head));
            lines
                .filter_map(|line| hex(line.split(' ').find_map(|word| word.strip_prefix("pfn="))?))
                .collect()
        };
        Self { freed: frames("freed"), reused: frames("reused"), unflushed: frames("freed-unflushed") }
    }

    /// By septwatch's JSON lines.
    pub fn of_septwatch(text: &str) -> Self {
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let frames = |head: &str| {
            let named = |line: &&Value| line["violation"].as_str().is_some_and(|name| name.starts_with(head));
            lines.iter().filter(named).filter_map(|line| line["pfn"].as_u64()).collect()
        };
        Self { freed: frames("freed"), reused: frames("reused"), unflushed: frames("freed-unflushed") }
    }

    /// `self` is what the module saw. Both must have seen the same frames freed, but for those that lies hide or make
    /// up. septwatch may not have seen all that the module saw reused: a frame that lies about is closed for it.
    pub fn against(&self, septwatch: &Self, expected: &Expectation) -> Vec<Finding> {
        let list = |of: &mut dyn Iterator<Item = &u64>| of.map(|pfn| format!("{pfn:#x}")).collect::<Vec<_>>();
        let hidden = list(&mut self.freed.difference(&septwatch.freed));
        let believed: BTreeSet<u64> = septwatch.freed.difference(&self.freed).copied().collect();
        let known = |pfn: &&u64| {
            !self.reused.contains(pfn) && !self.unflushed.contains(pfn) && !believed.contains(pfn)
        };
        let made_up = list(&mut septwatch.reused.iter().filter(known));
        vec![
            numbered("freed, and septwatch does not say so", expected.hidden, hidden),
            numbered("not freed, and septwatch says so", expected.believed, list(&mut believed.iter())),
            numbered("not reused, and septwatch says so", 0, made_up),
        ]
    }
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

/// How many there must be, and which there are.
fn numbered(what: &'static str, expected: usize, found: Vec<String>) -> Finding {
    let expected_words = if expected == 0 { Vec::new() } else { vec![format!("{expected} frames")] };
    Finding { what, equal: found.len() == expected, expected: expected_words, found }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::tests::FRAMES_FILE;
    use super::*;

    #[test]
    fn septwatch_and_the_module_must_name_the_same_frames() {
        let line = |name, pfn| format!("{{\"type\":\"violation\",\"violation\":\"{name}\",\"pfn\":{pfn}}}\n");
        let expected = Expectation::default();
        let equal = |text: &str, expected: &Expectation| {
            let septwatch = Frames::of_septwatch(text);
            Frames::of_module(FRAMES_FILE).against(&septwatch, expected).iter().all(|finding| finding.equal)
        };
        let both = line("freed-while-blocked", 1) + &line("freed-while-mapped", 2);
        assert!(equal(&both, &expected));
        assert!(equal(&(both.clone() + &line("reused-while-mapped", 1)), &expected));
        assert!(
            !equal(&(both.clone() + &line("reused-while-mapped", 2)), &expected),
            "frame 2 was not reused"
        );
        let one = line("freed-while-blocked", 1);
        assert!(!equal(&one, &expected), "frame 2 is missing");
        assert!(equal(&one, &Expectation { hidden: 1, ..Expectation::default() }));
        let three = both + &line("freed-unflushed", 3) + &line("reused-while-mapped", 3);
        assert!(!equal(&three, &expected), "frame 3 was not freed");
        assert!(equal(&three, &Expectation { believed: 1, ..Expectation::default() }));
    }
}
