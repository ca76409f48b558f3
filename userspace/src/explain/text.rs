//! Explanations as a person reads them: one label a line, the words after it.

use std::fmt;

use super::{Explanation, LeakWords, Reading, StatusWords, WarningWords};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(words) => words.fmt(f),
            Self::Warning(words) => words.fmt(f),
            Self::HkidLeaked(words) => words.fmt(f),
        }
    }
}

fn label(f: &mut fmt::Formatter<'_>, name: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {name:<11} {text}")
}

fn all(f: &mut fmt::Formatter<'_>, name: &str, texts: &[impl fmt::Display]) -> fmt::Result {
    for (index, text) in texts.iter().enumerate() {
        label(f, if index == 0 { name } else { "" }, text)?;
    }
    Ok(())
}

fn may_follow(f: &mut fmt::Formatter<'_>, names: &[&str]) -> fmt::Result {
    if names.is_empty() {
        Ok(())
    } else {
        label(f, "septwatch", format_args!("may report {}", names.join(", ")))
    }
}

impl fmt::Display for StatusWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.shown)?;
        if let Some(leaf) = &self.leaf {
            match self.leaf_does {
                Some(does) => label(f, "leaf", format_args!("{leaf}: {does}"))?,
                None => label(f, "leaf", leaf)?,
            }
        }
        if let Some(class) = &self.class {
            label(f, "class", class)?;
        }
        if !self.flags.is_empty() {
            label(f, "flags", self.flags.join(", "))?;
        }
        all(f, "registers", &self.registers)?;
        for reading in &self.readings {
            one_reading(f, reading, self.leaf.is_none())?;
        }
        all(f, "look at", &self.look_at)
    }
}

fn one_reading(f: &mut fmt::Formatter<'_>, reading: &Reading, with_leaf: bool) -> fmt::Result {
    match (reading.leaf, reading.means) {
        (Some(leaf), Some(means)) if with_leaf => label(f, "at", format_args!("{leaf}: {means}"))?,
        (_, Some(means)) => label(f, "means", means)?,
        (_, None) => {}
    }
    // Without a leaf the list would be long: what KVM does is for the leaf that one asks for.
    if with_leaf {
        return Ok(());
    }
    for next in &reading.kvm {
        match next.kernels {
            "" => label(f, "KVM", next.does)?,
            kernels => label(f, "KVM", format_args!("{kernels}: {}", next.does))?,
        }
        may_follow(f, next.may_follow)?;
    }
    let mut sources: Vec<&str> = Vec::new();
    for source in [reading.source.as_str()].into_iter().chain(reading.kvm.iter().map(|next| next.source)) {
        if !source.is_empty() && !sources.contains(&source) {
            sources.push(source);
        }
    }
    if sources.is_empty() { Ok(()) } else { label(f, "source", sources.join("; ")) }
}

impl fmt::Display for WarningWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => writeln!(f, "WARN in {function}() at {}", self.at)?,
            None => writeln!(f, "WARN at {}", self.at)?,
        }
        if let Some(does) = self.does {
            label(f, "function", does)?;
        }
        if !self.leaves.is_empty() {
            label(f, "leaves", self.leaves.join(", "))?;
        }
        label(f, "means", self.means.as_str())?;
        may_follow(f, &self.may_follow)?;
        all(f, "look at", &self.look_at)
    }
}

impl fmt::Display for LeakWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "HKID {} leaked, {} failed", self.hkid, self.leaf.unwrap_or("a leaf"))?;
        label(f, "means", self.means)?;
        may_follow(f, &self.may_follow)?;
        all(f, "look at", &self.look_at)
    }
}
