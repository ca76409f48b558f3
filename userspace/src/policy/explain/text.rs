//! An explanation for people.

use std::fmt;

use super::{Explained, Explanation, InTime, Step};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step.map_or_else(String::new, |leaf| format!(" of {leaf}"));
        let armed = if self.armed { "armed" } else { "dry run" };
        writeln!(f, "policy {} ({armed}) on {}{step}", self.policy, self.violation)?;
        writeln!(f, "seen {}", self.moment.words())?;
        if self.assumed {
            writeln!(f, "the kernel does not run: what its BTF does not tell is assumed")?;
        }
        if self.rules.is_empty() {
            writeln!(f, "no rule is for it: nothing is done")?;
        }
        for rule in &self.rules {
            self.rule(f, rule)?;
        }
        let acts = self
            .rules
            .iter()
            .flat_map(|rule| &rule.ladder)
            .any(|step| !matches!(step.reaction, "log" | "notify"));
        if acts && self.armed {
            writeln!(
                f,
                "\nnothing but log and notify is done on a suspect verdict, or while the agent is not armed"
            )?;
        } else if acts {
            writeln!(f, "\nnothing but log and notify is done: the policy does not say `armed = true`")?;
        }
        if !self.costs.is_empty() {
            writeln!(f, "\ncosts while nothing is wrong:")?;
        }
        self.costs.iter().try_for_each(|cost| writeln!(f, "  {cost}"))
    }
}

impl Explanation {
    fn rule(&self, f: &mut fmt::Formatter<'_>, rule: &Explained) -> fmt::Result {
        writeln!(f, "\nrule {:?}", rule.rule)?;
        if !rule.only.is_empty() {
            writeln!(f, "  only: {}", rule.only.join("; "))?;
        }
        for (number, step) in (1..).zip(&rule.ladder) {
            let if_failed = if step.if_failed { "if that failed: " } else { "" };
            writeln!(f, "  {number}. {:<11} {:<6} {if_failed}{}", step.reaction, step.by, step.how)?;
            if !matches!(step.reaction, "log" | "notify") {
                writeln!(f, "     keeps from the allocator in time: {}", self.stops(step))?;
            }
            if let Some(gap) = &step.gap {
                writeln!(f, "     CANNOT BE DONE on this kernel: {gap}")?;
            }
        }
        Ok(())
    }

    fn stops(&self, step: &Step) -> String {
        let this = self.moment.this().zip(step.stops.this);
        let ways = [("later punches", step.stops.later_punches), ("close or exit", step.stops.close_or_exit)];
        let ways: Vec<_> =
            this.into_iter().chain(ways).map(|(way, in_time)| format!("{way}: {}", in_time.name())).collect();
        let nothing =
            [step.stops.later_punches, step.stops.close_or_exit].iter().all(|way| *way == InTime::No)
                && step.stops.this.is_none_or(|this| this == InTime::No);
        if nothing { "nothing".to_owned() } else { ways.join("; ") }
    }
}
