//! A configuration file that says what can be set.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use super::{AUTO, RATE, RATES, theme_name};
use crate::view::top::{keys::Action, palette::Theme, rows::keys, ui::View};

/// All that can be set, as it comes, in comments.
pub fn template() -> String {
    let themes: Vec<_> = Theme::value_variants().iter().map(|theme| theme_name(*theme)).collect();
    let views = View::ALL.map(View::name).join(", ");
    let mut text = "# septwatch top: what is chosen when it starts. What is set here is the default: take the # away to \
                    change it.\n"
        .to_owned();
    let mut setting = |about: &str, name: &str, value: &str| {
        // Writing to a text cannot fail.
        let _ = write!(text, "\n# {about}\n#{name} = {value}\n");
    };
    setting(
        &format!("Colours: {AUTO} (as NO_COLOR and TERM say), {}.", themes.join(", ")),
        "theme",
        &format!("{AUTO:?}"),
    );
    setting(
        &format!("Signs of ASCII alone: true, false, or {AUTO:?} (as LANG and TERM say)."),
        "ascii",
        &format!("{AUTO:?}"),
    );
    let (least, most) = (RATES.start(), RATES.end());
    setting(&format!("Frames per second: {least} to {most}."), "rate", &RATE.to_string());
    setting("Whether the mouse is taken from the terminal.", "mouse", "true");
    setting(&format!("The view that is open: {views}."), "view", &format!("{:?}", View::default().name()));
    text += "\n# Keys: a character, or a name such as enter, pgdn or f5, also with ctrl-, alt- or shift-. What is set \
             replaces all\n# keys of an action; [] leaves it without one.\n[keys]\n";
    for action in Action::ALL {
        let _ = writeln!(text, "# {}\n#{} = {:?}", action.does(), action.name(), action.default_keys());
    }
    let tables: Vec<_> = View::ALL.into_iter().filter(|view| view.has_table()).collect();
    text += "\n# Tables: the columns that are shown; the one that a table is sorted by, with - in front the largest \
             first;\n# and a filter, as in \"td=web* busy>100\".\n";
    for view in tables {
        let columns = keys(view);
        let _ =
            write!(text, "[views.{}]\n#columns = {columns:?}\n#sort = \"\"\n#filter = \"\"\n\n", view.name());
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}
