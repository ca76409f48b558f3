//! Colours and signs, as they are chosen or as the environment says.

use clap::ValueEnum as _;

use crate::view::top::{
    config::Config,
    draw::Look,
    palette::{self, Depth, Palette, Theme},
    symbols::Symbols,
};

/// How the screen looks.
pub struct Picture {
    /// What it is drawn with.
    pub look: Look,
    /// Its theme.
    pub theme: Theme,
    /// The theme, if a person has chosen it.
    pub chosen: Option<Theme>,
    depth: Depth,
}

impl Picture {
    /// What is configured; for the rest, what the environment says.
    pub fn new(config: &Config, env: impl Fn(&str) -> Option<String>) -> Self {
        let (theme, depth) = palette::detect(&env);
        let theme = config.theme.unwrap_or(theme);
        let symbols = match config.ascii {
            Some(true) => Symbols::ascii(),
            Some(false) => Symbols::unicode(),
            None => Symbols::detect(&env),
        };
        let look = Look { palette: Palette::new(theme, depth), symbols };
        Self { look, theme, chosen: config.theme, depth }
    }

    /// Takes the next theme.
    pub fn next_theme(&mut self) {
        let all = Theme::value_variants();
        let next = all.iter().position(|theme| *theme == self.theme).map_or(0, |place| place + 1);
        self.theme = all.get(next).or(all.first()).copied().unwrap_or_default();
        self.chosen = Some(self.theme);
        self.look.palette = Palette::new(self.theme, self.depth);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_goes_before_what_the_environment_says() {
        let env = |name: &str| (name == "NO_COLOR").then(|| "1".to_owned());
        let mut picture = Picture::new(&Config::default(), env);
        assert_eq!((picture.theme, picture.chosen), (Theme::Mono, None));
        for theme in [Theme::Even, Theme::Dark, Theme::Light, Theme::Mono, Theme::Even] {
            picture.next_theme();
            assert_eq!((picture.theme, picture.chosen), (theme, Some(theme)));
            assert_eq!(picture.look.palette, Palette::new(theme, picture.depth));
        }
        let config = Config { theme: Some(Theme::Light), ascii: Some(false), ..Config::default() };
        let picture = Picture::new(&config, env);
        assert_eq!(picture.theme, Theme::Light);
        assert_eq!(picture.look.symbols.ellipsis, Symbols::unicode().ellipsis);
    }
}
