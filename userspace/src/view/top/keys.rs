//! The key map: what a person can do, with which keys, and in which words it is told.

mod key;

pub use key::{BadKey, Key};

use std::collections::HashMap;

use crate::view::top::{
    draw::HelpLine,
    filter::alike,
    scene::{Scene, Source},
    ui::View,
};

macro_rules! actions {
    ($($group:literal { $($action:ident $name:literal $does:literal [$($key:literal),*];)* })*) => {
        /// What a person can do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[doc = $does] $action,)*)*
        }

        impl Action {
            /// All of them, in the order of the help.
            pub const ALL: &[Self] = &[$($(Self::$action),*),*];

            /// Its name in the configuration file.
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$action => $name,)*)* }
            }

            /// What it does.
            pub const fn does(self) -> &'static str {
                match self { $($(Self::$action => $does,)*)* }
            }

            /// Under which title the help has it.
            pub const fn group(self) -> &'static str {
                match self { $($(Self::$action => $group,)*)* }
            }

            /// The names of its keys, if the configuration file gives no others.
            pub const fn default_keys(self) -> &'static [&'static str] {
                match self { $($(Self::$action => &[$($key),*],)*)* }
            }
        }
    };
}

actions! {
    "Views" {
        Overview "overview" "the host at a glance" ["1"];
        Tds "tds" "TDs" ["2"];
        Violations "violations" "violations" ["3"];
        Seamcalls "seamcalls" "SEAMCALLs" ["4"];
        Policy "policy" "hooks and policy" ["5"];
        Log "log" "log" ["6"];
        NextView "next-view" "next view" ["tab"];
        PreviousView "previous-view" "previous view" ["shift-tab"];
    }
    "Rows" {
        Up "up" "up" ["up", "k"];
        Down "down" "down" ["down", "j"];
        PageUp "page-up" "page up" ["pgup", "ctrl-b", "ctrl-u"];
        PageDown "page-down" "page down" ["pgdn", "ctrl-f", "ctrl-d"];
        First "first" "first" ["home", "g"];
        Last "last" "last" ["end", "G"];
        Open "open" "open the row" ["enter"];
        Close "close" "close; clear the filter" ["esc", "backspace"];
    }
    "Find" {
        Filter "filter" "filter, as in td=web* busy>100" ["/", "f4"];
        Search "search" "search for a text" ["f", "f3"];
        SearchNext "search-next" "next match" ["n"];
        SearchPrevious "search-previous" "previous match" ["N"];
        SortNext "sort-next" "sort by the next column" ["s", "f6"];
        SortPrevious "sort-previous" "sort by the previous column" ["S"];
        Reverse "reverse" "reverse the order" ["r"];
    }
    "Time" {
        Pause "pause" "pause; go on" ["space", "p"];
        Back "back" "a step back: 1 s, or 1/100" ["left", "h"];
        Forth "forth" "a step forth" ["right", "l"];
        BackMore "back-more" "10 steps back" ["shift-left", "H"];
        ForthMore "forth-more" "10 steps forth" ["shift-right", "L"];
        BackMost "back-most" "60 s, or 1/4, back" ["ctrl-left"];
        ForthMost "forth-most" "60 s, or 1/4, forth" ["ctrl-right"];
        PreviousViolation "previous-violation" "to the violation before" ["["];
        NextViolation "next-violation" "to the violation after" ["]"];
        Begin "begin" "to the begin" ["{", "ctrl-home"];
        Latest "latest" "to the latest" ["}", "ctrl-end"];
        GoTo "go-to" "to a moment" ["t"];
        Slower "slower" "play at half the speed" ["-"];
        Faster "faster" "play at twice the speed" ["+", "="];
    }
    "Keep" {
        Copy "copy" "copy the violation's report" ["y"];
        Save "save" "save the violation's report" ["w"];
        Record "record" "begin to record; end it" ["R"];
        SaveLayout "save-layout" "save view, columns and theme" ["W"];
    }
    "Policy" {
        Arm "arm" "arm the policy" ["A"];
        Disarm "disarm" "disarm the policy" ["D"];
    }
    "Screen" {
        Help "help" "this help" ["?", "f1"];
        Theme "theme" "next theme" ["T"];
        Redraw "redraw" "draw anew" ["ctrl-l"];
        Suspend "suspend" "back to the shell; fg returns" ["ctrl-z"];
        Quit "quit" "quit" ["q", "f10", "ctrl-c"];
    }
}

impl Action {
    /// The action of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }

    /// That opens a view.
    pub const fn view(view: View) -> Self {
        match view {
            View::Overview => Self::Overview,
            View::Tds => Self::Tds,
            View::Violations => Self::Violations,
            View::Seamcalls => Self::Seamcalls,
            View::Policy => Self::Policy,
            View::Log => Self::Log,
        }
    }
}

/// A key map cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyMapError {
    /// A name is that of no key.
    #[error("{action}: {source}")]
    Key {
        /// The action's name.
        action: &'static str,
        /// What is wrong.
        source: BadKey,
    },
    /// A key would do two things.
    #[error("{key} is for both {one} and {other}: give one of them other keys")]
    Conflict {
        /// The key.
        key: Key,
        /// An action's name.
        one: &'static str,
        /// Another one's.
        other: &'static str,
    },
    /// There is no such action.
    #[error("no action {name}{}; actions: {}", guess(.name), names())]
    Action {
        /// What was taken for one.
        name: String,
    },
    /// Nobody could leave.
    #[error("quit needs a key")]
    NoQuit,
}

fn names() -> String {
    Action::ALL.iter().map(|action| action.name()).collect::<Vec<_>>().join(" ")
}

fn guess(name: &str) -> String {
    let alike = alike(name, Action::ALL.iter().map(|action| action.name()));
    alike.map(|alike| format!(": {alike}?")).unwrap_or_default()
}

/// Which key does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyMap {
    actions: HashMap<Key, Action>,
    /// By action, in the order of [`Action::ALL`].
    keys: Vec<Vec<Key>>,
}

impl Default for KeyMap {
    /// The default keys.
    fn default() -> Self {
        Self::new([]).unwrap_or_else(|_| Self { actions: HashMap::new(), keys: Vec::new() })
    }
}

impl KeyMap {
    /// The default keys, but those of these actions: names of keys instead of the default ones. No name: no key.
    ///
    /// # Errors
    /// See [`KeyMapError`].
    pub fn new<'a>(other: impl IntoIterator<Item = (&'a str, Vec<&'a str>)>) -> Result<Self, KeyMapError> {
        let mut names: Vec<_> = Action::ALL.iter().map(|action| action.default_keys().to_vec()).collect();
        for (name, keys) in other {
            let Some(place) = Action::ALL.iter().position(|action| action.name() == name) else {
                return Err(KeyMapError::Action { name: name.to_owned() });
            };
            names[place] = keys;
        }
        let mut map = Self { actions: HashMap::new(), keys: Vec::new() };
        for (action, names) in Action::ALL.iter().zip(names) {
            let mut keys = Vec::new();
            for name in names {
                let key: Key =
                    name.parse().map_err(|source| KeyMapError::Key { action: action.name(), source })?;
                match map.actions.insert(key, *action) {
                    Some(one) if one != *action => {
                        return Err(KeyMapError::Conflict { key, one: one.name(), other: action.name() });
                    }
                    Some(_) => {}
                    None => keys.push(key),
                }
            }
            map.keys.push(keys);
        }
        if map.keys(Action::Quit).is_empty() {
            return Err(KeyMapError::NoQuit);
        }
        Ok(map)
    }

    /// What a key does.
    pub fn action(&self, key: Key) -> Option<Action> {
        self.actions.get(&key).copied()
    }

    /// The keys of an action, the most usual first.
    pub fn keys(&self, action: Action) -> &[Key] {
        let place = Action::ALL.iter().position(|one| *one == action);
        place.and_then(|place| self.keys.get(place)).map_or(&[], Vec::as_slice)
    }

    /// The help: one line per action that has a key, by groups.
    pub fn help(&self) -> Vec<HelpLine> {
        let keyed = Action::ALL.iter().filter(|action| !self.keys(**action).is_empty());
        keyed
            .map(|action| {
                let keys: Vec<_> = self.keys(*action).iter().map(ToString::to_string).collect();
                HelpLine { keys: keys.join(" "), does: action.does().to_owned(), group: action.group() }
            })
            .collect()
    }

    /// What is worth knowing in a view, with the first key of each, the most important first, under the view's title: for
    /// the last line. `open`: a row of it is open.
    pub fn hints(&self, view: View, open: bool, scene: &Scene) -> Vec<HelpLine> {
        use Action::{
            Arm, Close, Copy, Disarm, Filter, GoTo, Help, NextViolation, Open, Pause, Quit, Record, Reverse,
            Save, Search, SortNext,
        };
        let hints: &[(Action, &str)] = match (view, open) {
            (View::Tds, true) => &[(Close, "back"), (Pause, "pause"), (Filter, "filter")],
            (View::Violations, true) => &[(Close, "back"), (Copy, "copy"), (Save, "save")],
            (View::Overview, _) => {
                &[(Pause, "pause"), (NextViolation, "violation"), (Record, "record"), (GoTo, "go to")]
            }
            (View::Tds | View::Violations, false) => &[
                (Open, "open"),
                (Filter, "filter"),
                (Search, "search"),
                (SortNext, "sort"),
                (Reverse, "reverse"),
            ],
            (View::Seamcalls, _) => &[(SortNext, "sort"), (Reverse, "reverse"), (Filter, "filter")],
            (View::Policy, _) => &[(Arm, "arm"), (Disarm, "disarm"), (Filter, "filter")],
            (View::Log, _) => &[(Open, "open"), (Filter, "filter"), (Search, "search"), (Pause, "pause")],
        };
        let everywhere = [(Help, "help"), (Quit, "quit")];
        let recording = matches!(scene.about.source, Source::Recording(_));
        let is_of_use = |action: Action| match action {
            Action::Record => !recording,
            Action::Arm | Action::Disarm => scene.policy.is_some(),
            _ => true,
        };
        let line = |(action, word): &(Action, &str)| {
            let word = if recording && *action == Action::Pause { "play" } else { word };
            let keys = self.keys(*action).first()?.to_string();
            Some(HelpLine { keys, does: (*word).to_owned(), group: view.title() })
        };
        hints.iter().filter(|(action, _)| is_of_use(*action)).chain(&everywhere).filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests;
