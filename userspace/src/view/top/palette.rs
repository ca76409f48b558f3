//! Colours.
//!
//! Nothing is told by a colour alone, and no background is ever set: what is chosen is reversed.

use ratatui::style::{Color, Modifier, Style};

/// Which colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Theme {
    /// Of a lightness in the middle: they can be read on black and on white, without asking which it is.
    #[default]
    Even,
    /// For dark terminals.
    Dark,
    /// For light terminals.
    Light,
    /// None: bold, underlined, reversed, dim.
    Mono,
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Any colour.
    True,
    /// The 256 of xterm.
    Indexed,
    /// The terminal's own 16, of which nobody knows what they look like.
    #[default]
    Sixteen,
}

/// What a colour is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Role {
    /// Its number in the cube or the greys of xterm: [`Theme::Even`], [`Theme::Dark`], [`Theme::Light`].
    indexed: [u8; 3],
    /// The nearest of the 16.
    sixteen: Color,
    /// What it is told by where there are no colours; where there are, only the bold stays.
    mono: Modifier,
}

const QUIET: Role = Role { indexed: [243, 250, 242], sixteen: Color::Reset, mono: Modifier::DIM };
const ACCENT: Role = Role { indexed: [97, 141, 55], sixteen: Color::Magenta, mono: Modifier::BOLD };
const GOOD: Role = Role { indexed: [31, 75, 26], sixteen: Color::Cyan, mono: Modifier::empty() };
const WARN: Role = Role { indexed: [130, 214, 130], sixteen: Color::Yellow, mono: Modifier::BOLD };
const BAD: Role =
    Role { indexed: [161, 203, 88], sixteen: Color::Red, mono: Modifier::BOLD.union(Modifier::UNDERLINED) };

/// The styles that the screen is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    /// Plain text: the terminal's own.
    pub text: Style,
    /// What is less important: labels, units, rules.
    pub quiet: Style,
    /// Keys, and what is open.
    pub accent: Style,
    /// As it should be: mapped frames, all clear.
    pub good: Style,
    /// To be looked at: suspect, blocked, degraded.
    pub warn: Style,
    /// Wrong: violations.
    pub bad: Style,
    /// Headings.
    pub head: Style,
    /// The row that is chosen, the tab that is open.
    pub chosen: Style,
}

impl Default for Palette {
    fn default() -> Self {
        Self::new(Theme::default(), Depth::default())
    }
}

impl Palette {
    /// The styles of a theme on such a terminal.
    pub fn new(theme: Theme, depth: Depth) -> Self {
        let style = |role: Role| {
            let at = match theme {
                Theme::Even => 0,
                Theme::Dark => 1,
                Theme::Light => 2,
                Theme::Mono => return Style::new().add_modifier(role.mono),
            };
            let index = role.indexed[at];
            let bold = role.mono & Modifier::BOLD;
            match depth {
                Depth::True => {
                    let [r, g, b] = rgb(index);
                    Style::new().fg(Color::Rgb(r, g, b)).add_modifier(bold)
                }
                Depth::Indexed => Style::new().fg(Color::Indexed(index)).add_modifier(bold),
                // The 16 have no grey that can be read everywhere.
                Depth::Sixteen if role.sixteen == Color::Reset => Style::new().add_modifier(role.mono),
                Depth::Sixteen => Style::new().fg(role.sixteen).add_modifier(bold),
            }
        };
        Self {
            text: Style::new(),
            quiet: style(QUIET),
            accent: style(ACCENT),
            good: style(GOOD),
            warn: style(WARN),
            bad: style(BAD),
            head: Style::new().add_modifier(Modifier::BOLD),
            chosen: Style::new().add_modifier(Modifier::REVERSED),
        }
    }
}

/// What the environment says of the terminal: NO_COLOR, COLORTERM and TERM.
pub fn detect(env: impl Fn(&str) -> Option<String>) -> (Theme, Depth) {
    let of = |name| env(name).unwrap_or_default();
    let (term, color) = (of("TERM"), of("COLORTERM"));
    let theme = if !of("NO_COLOR").is_empty() || term == "dumb" { Theme::Mono } else { Theme::Even };
    let depth = if color == "truecolor" || color == "24bit" || term.ends_with("-direct") {
        Depth::True
    } else if term.contains("256color") {
        Depth::Indexed
    } else {
        Depth::Sixteen
    };
    (theme, depth)
}

/// Red, green and blue of one of xterm's 256 colours, from 16 on.
const fn rgb(index: u8) -> [u8; 3] {
    const STEPS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    match index {
        0..16 => [0; 3],
        16..232 => {
            let at = (index - 16) as usize;
            [STEPS[at / 36], STEPS[at / 6 % 6], STEPS[at % 6]]
        }
        232.. => [8 + 10 * (index - 232); 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linear light of a part of an sRGB colour.
    fn linear(part: u8) -> f64 {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    }

    /// Contrast to a grey of this luminance, as WCAG has it.
    fn contrast(color: [u8; 3], other: f64) -> f64 {
        let [r, g, b] = color.map(linear);
        let own = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        (own.max(other) + 0.05) / (own.min(other) + 0.05)
    }

    type Matrix = [[f64; 3]; 3];
    /// How eyes see: all three kinds of cones, then without the first, the second, the third (Machado et al. 2009).
    const EYES: [(&str, Matrix); 4] = [
        ("common", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        (
            "protanopia",
            [
                [0.152_286, 1.052_583, -0.204_868],
                [0.114_503, 0.786_281, 0.099_216],
                [-0.003_882, -0.048_116, 1.051_998],
            ],
        ),
        (
            "deuteranopia",
            [
                [0.367_322, 0.860_646, -0.227_968],
                [0.280_085, 0.672_501, 0.047_413],
                [-0.011_820, 0.042_940, 0.968_881],
            ],
        ),
        (
            "tritanopia",
            [
                [1.255_528, -0.076_749, -0.178_779],
                [-0.078_411, 0.930_809, 0.147_602],
                [0.004_733, 0.691_367, 0.303_900],
            ],
        ),
    ];

    /// L*a*b* of a colour as such eyes see it.
    fn seen(color: [u8; 3], eyes: &Matrix) -> [f64; 3] {
        let light = color.map(linear);
        let dot = |row: &[f64; 3]| row.iter().zip(light).map(|(a, b)| a * b).sum::<f64>().clamp(0.0, 1.0);
        let [r, g, b] = [dot(&eyes[0]), dot(&eyes[1]), dot(&eyes[2])];
        let f = |t: f64| if t > 0.008_856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
        let x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505);
        let y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
        let z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.0888);
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    fn distance(one: [f64; 3], other: [f64; 3]) -> f64 {
        one.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn colours_can_be_read_on_what_their_theme_is_for() {
        for role in [QUIET, ACCENT, GOOD, WARN, BAD] {
            let [even, dark, light] = role.indexed.map(rgb);
            for (color, ground) in [(even, 0.0), (even, 1.0), (dark, 0.0), (light, 1.0)] {
                let contrast = contrast(color, ground);
                assert!(contrast >= 4.0, "{color:?} on {ground}: {contrast:.2}");
            }
        }
    }

    #[test]
    fn states_differ_for_every_kind_of_eyes() {
        for theme in 0..3 {
            let colors = [QUIET, GOOD, WARN, BAD].map(|role| rgb(role.indexed[theme]));
            for (name, eyes) in &EYES {
                for (at, one) in colors.iter().enumerate() {
                    for other in &colors[at + 1..] {
                        // A difference of 2.3 can just be seen.
                        let distance = distance(seen(*one, eyes), seen(*other, eyes));
                        assert!(distance >= 15.0, "{name}, theme {theme}: {one:?} {other:?} {distance:.1}");
                    }
                }
            }
        }
        // The check can fail: red and green of one lightness.
        let [red, green] = [[190, 60, 0], [95, 105, 0]].map(|color| seen(color, &EYES[2].1));
        assert!(distance(red, green) < 15.0);
    }

    #[test]
    fn no_colours_where_none_are_wanted() {
        let all = |palette: Palette| {
            let Palette { text, quiet, accent, good, warn, bad, head, chosen } = palette;
            [text, quiet, accent, good, warn, bad, head, chosen]
        };
        for theme in [Theme::Even, Theme::Dark, Theme::Light, Theme::Mono] {
            for depth in [Depth::True, Depth::Indexed, Depth::Sixteen] {
                let styles = all(Palette::new(theme, depth));
                assert!(styles.iter().all(|style| style.bg.is_none()));
                assert_eq!(styles.iter().all(|style| style.fg.is_none()), theme == Theme::Mono);
            }
        }
        let mono = Palette::new(Theme::Mono, Depth::True);
        assert_ne!(mono.warn, mono.bad);
        assert_ne!(mono.good, mono.warn);
    }

    #[test]
    fn the_environment_tells_the_terminal() {
        let of = |vars: &[(&str, &str)]| {
            detect(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[]), (Theme::Even, Depth::Sixteen));
        assert_eq!(of(&[("TERM", "xterm-256color")]), (Theme::Even, Depth::Indexed));
        assert_eq!(of(&[("TERM", "xterm"), ("COLORTERM", "truecolor")]), (Theme::Even, Depth::True));
        assert_eq!(of(&[("TERM", "xterm-direct")]).1, Depth::True);
        assert_eq!(of(&[("TERM", "linux"), ("NO_COLOR", "1")]).0, Theme::Mono);
        assert_eq!(of(&[("TERM", "xterm"), ("NO_COLOR", "")]).0, Theme::Even, "an empty NO_COLOR is none");
        assert_eq!(of(&[("TERM", "dumb")]).0, Theme::Mono);
    }
}
