//! Policies that come with septwatch.

/// Name and text of each, in the order of how much they do.
const ALL: [(&str, &str); 6] = [
    ("observe", include_str!("policies/observe.toml")),
    ("alert", include_str!("policies/alert.toml")),
    ("contain", include_str!("policies/contain.toml")),
    ("cordon", include_str!("policies/cordon.toml")),
    ("panic-on-use-after-free", include_str!("policies/panic-on-use-after-free.toml")),
    ("panic-on-warn", include_str!("policies/panic-on-warn.toml")),
];

/// The one that is followed where none is named.
pub const DEFAULT: &str = "observe";

/// Name and text of each.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.into_iter()
}

/// The text of the one with this name.
pub fn text(name: &str) -> Option<&'static str> {
    all().find(|(known, _)| *known == name).map(|(_, text)| text)
}

/// All names, for a message.
pub fn names() -> String {
    ALL.map(|(name, _)| name).join(", ")
}
