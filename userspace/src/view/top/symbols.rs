//! Signs that the screen is drawn with, in Unicode or in ASCII.

/// The signs. Each is one cell wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// Where a text is cut.
    pub ellipsis: &'static str,
    /// Between what stands side by side in a line.
    pub dot: &'static str,
    /// A rule.
    pub rule: &'static str,
    /// A rule from top to bottom.
    pub wall: &'static str,
    /// Heights of a bar that stands, from nothing to a full cell.
    pub levels: &'static [&'static str],
    /// Lengths of a bar that lies, from nothing to a full cell.
    pub lengths: &'static [&'static str],
    /// Where a bar could be.
    pub ground: &'static str,
    /// Sorted, the smallest first.
    pub rising: &'static str,
    /// Sorted, the largest first.
    pub falling: &'static str,
    /// All is well.
    pub good: &'static str,
    /// To be looked at.
    pub warn: &'static str,
    /// A violation.
    pub bad: &'static str,
    /// Something happened.
    pub step: &'static str,
    /// What is between two steps.
    pub thread: &'static str,
    /// Frames: mapped.
    pub mapped: &'static str,
    /// Frames: blocked.
    pub blocked: &'static str,
    /// Frames: removed, not yet given back.
    pub removed: &'static str,
    /// Frames: of the TDX module itself.
    pub owned: &'static str,
    /// Frames: received by the page allocator all the same.
    pub violated: &'static str,
    /// It goes on by itself.
    pub playing: &'static str,
    /// It stands still.
    pub paused: &'static str,
    /// Written into a file.
    pub recording: &'static str,
    /// Here, on the bar of time.
    pub here: &'static str,
    /// What is on the screen, in the scroll bar.
    pub thumb: &'static str,
}

impl Symbols {
    /// In Unicode; none of them has a width that terminals disagree on where the language is a western one.
    pub const fn unicode() -> Self {
        Self {
            ellipsis: "…",
            dot: "·",
            rule: "─",
            wall: "│",
            levels: &[" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"],
            lengths: &[" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"],
            ground: "·",
            rising: "▲",
            falling: "▼",
            good: "✓",
            warn: "!",
            bad: "✗",
            step: "●",
            thread: "│",
            mapped: "■",
            blocked: "▒",
            removed: "·",
            owned: "□",
            violated: "✗",
            playing: "▶",
            paused: "‖",
            recording: "●",
            here: "◆",
            thumb: "┃",
        }
    }

    /// In ASCII.
    pub const fn ascii() -> Self {
        Self {
            ellipsis: "~",
            dot: "|",
            rule: "-",
            wall: "|",
            levels: &[" ", "_", ".", "-", "=", "#"],
            lengths: &[" ", "#"],
            ground: ".",
            rising: "^",
            falling: "v",
            good: "+",
            warn: "!",
            bad: "X",
            step: "o",
            thread: "|",
            mapped: "#",
            blocked: "%",
            removed: ".",
            owned: "o",
            violated: "X",
            playing: ">",
            paused: "=",
            recording: "*",
            here: "^",
            thumb: "|",
        }
    }

    /// What the environment says that the terminal can show: LC_ALL, LC_CTYPE, LANG and TERM.
    pub fn detect(env: impl Fn(&str) -> Option<String>) -> Self {
        let of = |name: &&str| env(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(of).unwrap_or_default().to_lowercase();
        let plain = matches!(of(&"TERM").as_deref(), Some("linux" | "dumb"));
        let utf8 = locale.contains("utf-8") || locale.contains("utf8");
        if utf8 && !plain { Self::unicode() } else { Self::ascii() }
    }
}

impl Default for Symbols {
    fn default() -> Self {
        Self::ascii()
    }
}

#[cfg(test)]
mod tests {
    use ratatui::buffer::CellWidth as _;

    use super::*;

    fn all(symbols: &Symbols) -> Vec<&'static str> {
        let s = symbols;
        let single = [
            s.ellipsis,
            s.dot,
            s.rule,
            s.wall,
            s.ground,
            s.rising,
            s.falling,
            s.good,
            s.warn,
            s.bad,
            s.step,
            s.thread,
            s.mapped,
            s.blocked,
            s.removed,
            s.owned,
            s.violated,
            s.playing,
            s.paused,
            s.recording,
            s.here,
            s.thumb,
        ];
        single.iter().chain(s.levels).chain(s.lengths).copied().collect()
    }

    #[test]
    fn each_is_one_cell_wide() {
        assert!(all(&Symbols::unicode()).iter().all(|symbol| symbol.cell_width() == 1));
        assert!(all(&Symbols::ascii()).iter().all(|symbol| symbol.len() == 1 && symbol.is_ascii()));
    }

    #[test]
    fn states_of_frames_differ_without_colours() {
        for s in [Symbols::unicode(), Symbols::ascii()] {
            let mut states = [s.mapped, s.blocked, s.removed, s.owned, s.violated];
            states.sort_unstable();
            assert!(states.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }

    #[test]
    fn the_environment_tells_what_can_be_shown() {
        let of = |vars: &[(&str, &str)]| {
            Symbols::detect(|name| {
                vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[("LANG", "de_DE.UTF-8"), ("TERM", "xterm")]), Symbols::unicode());
        assert_eq!(of(&[("LC_ALL", ""), ("LC_CTYPE", "C.utf8")]), Symbols::unicode());
        assert_eq!(of(&[("LC_ALL", "C"), ("LANG", "de_DE.UTF-8")]), Symbols::ascii());
        assert_eq!(of(&[("LANG", "de_DE.UTF-8"), ("TERM", "linux")]), Symbols::ascii());
        assert_eq!(of(&[]), Symbols::ascii());
    }
}
