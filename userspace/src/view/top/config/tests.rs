#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::view::top::keys::Action;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("top.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn the_template_is_the_default_with_and_without_its_comments() {
    let template = template();
    assert_eq!(parse(&template).unwrap(), Config::default());
    let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let active: String = template
        .lines()
        .map(|line| if is_setting(line) { &line[1..] } else { line }.to_owned() + "\n")
        .collect();
    assert_eq!(parse(&active).unwrap(), Config::default());
    // Nothing is left out.
    let count = template.lines().filter(|line| is_setting(line)).count();
    assert_eq!(count, 5 + Action::ALL.len() + 3 * 5);
    assert!(template.lines().all(|line| line.len() <= 220), "{template}");
}

#[test]
fn what_is_set_is_taken() {
    let config = parse(
        "theme = 'mono'\nascii = true\nrate = 30\nmouse = false\nview = 'log'\n[keys]\npause = ['P']\nrecord = []\n\
         [views.tds]\ncolumns = ['td', 'name', 'busy']\nsort = '-busy'\nfilter = 'td=web* busy>1'\n\
         [views.log]\nsort = 'age'\n",
    )
    .unwrap();
    assert_eq!((config.theme, config.ascii, config.rate), (Some(Theme::Mono), Some(true), 30));
    assert_eq!((config.mouse, config.view), (false, View::Log));
    assert_eq!(config.keys.action("P".parse().unwrap()), Some(Action::Pause));
    let mut ui = config.ui();
    assert_eq!(ui.view, View::Log);
    let list = ui.list(View::Tds);
    assert_eq!(list.hidden.len(), keys(View::Tds).len() - 3);
    assert_eq!(list.sort, Some(("busy".to_owned(), true)));
    assert_eq!(list.filter.text, "td=web* busy>1");
    assert_eq!(ui.list(View::Log).sort, Some(("age".to_owned(), false)));
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_is_known() {
    for (text, told) in [
        ("\nrat = 4\n", "top.toml:2: unknown field `rat`, expected one of `theme`, `ascii`, `rate`"),
        ("theme = 'drak'", "top.toml:1: no theme drak: dark?; there are even dark light mono auto"),
        ("ascii = 1", "top.toml:1: ascii is true, false or \"auto\""),
        ("rate = 0", "top.toml:1: rate is 1 to 30 frames per second, not 0"),
        ("rate = 31", "top.toml:1: rate is 1 to 30 frames per second, not 31"),
        ("rate = 4.5", "top.toml:1: invalid type: floating point `4.5`, expected i64"),
        ("\n\nview = 'TDs'", "top.toml:3: no view TDs: tds?; there are overview tds violations"),
        ("[keys]\npause = ['q']", "top.toml:2: q is for both pause and quit: give one of them other keys"),
        ("[keys]\nquit = []", "top.toml:2: quit needs a key"),
        ("[keys]\nup = ['k']\npuase = ['p']", "top.toml:3: no action puase: pause?; actions: "),
        ("[keys]\nup = ['upp']", "top.toml:2: up: \"upp\" is no key: "),
        ("[keys]\nup = 'k'", "top.toml:2: invalid type: string \"k\", expected a sequence"),
        ("[views.overview]\n", "top.toml:1: unknown field `overview`, expected one of `tds`, "),
        ("[views.tds]\nsorted = 'td'", "top.toml:2: unknown field `sorted`, expected one of `columns`, "),
        ("[views.tds]\nsort = '-bsuy'", "top.toml:2: no column bsuy: busy?; there are td name "),
        ("[views.tds]\ncolumns = ['td', 'x']", "top.toml:2: no column x; there are td name "),
        ("[views.tds]\ncolumns = []", "top.toml:2: at least one column is shown, of td name "),
        ("[views.tds]\n\nfilter = 'busy>'", "top.toml:3: busy>, character 1: a value belongs after >"),
        ("view = ", "top.toml:1: "),
        ("view = 'a\\u001b'", "top.toml:1: "),
        ("view = \"\\u001b[2J\"", "top.toml:1: no view ?[2J"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(told), "{error}");
    }
}

#[test]
fn saving_keeps_what_it_does_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").join("top.toml");
    let mut ui = Ui { view: View::Tds, ..Ui::default() };
    ui.list(View::Log);
    ui.list(View::Tds).sort = Some(("busy".to_owned(), true));
    ui.list(View::Tds).filter = Filter::parse("name=\"a b\"", View::Tds).unwrap();
    save(&path, &ui, Some(Theme::Dark)).unwrap();
    let saved = fs::read_to_string(&path).unwrap();
    assert_eq!(
        saved,
        "# Saved by septwatch top. All that can be set: septwatch top --print-config\n\nview = \"tds\"\n\
         theme = \"dark\"\n\n[views.tds]\nsort = \"-busy\"\nfilter = 'name=\"a b\"'\n"
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(Config::read(&path).unwrap().ui().list(View::Tds).sort, ui.list(View::Tds).sort);

    let written = "# mine\nrate = 10 # fast\nview = \"log\" # of all\n\n[keys]\n# q is too near to w\nquit = [\"Q\"]\n\n\
                   [views.tds] # the TDs\ncolumns = [\"td\"]\nsort = \"td\" # by number\n";
    fs::write(&path, written).unwrap();
    ui.list(View::Tds).filter = Filter::default();
    ui.list(View::Policy).hidden = keys(View::Policy)[1..].iter().map(|key| (*key).to_owned()).collect();
    save(&path, &ui, None).unwrap();
    let expected = written
        .replace("\"log\"", "\"tds\"")
        .replace("columns = [\"td\"]\n", "")
        .replace("\"td\" # by", "\"-busy\" # by");
    assert_eq!(fs::read_to_string(&path).unwrap(), expected + "\n[views.policy]\ncolumns = [\"hook\"]\n");
    // The same once more changes nothing.
    let before = fs::read(&path).unwrap();
    save(&path, &ui, None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn the_template_can_be_saved_into() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("top.toml");
    fs::write(&path, template()).unwrap();
    let mut ui = Ui { view: View::Log, ..Ui::default() };
    ui.list(View::Log).sort = Some(("age".to_owned(), true));
    save(&path, &ui, Some(Theme::Light)).unwrap();
    let config = Config::read(&path).unwrap();
    assert_eq!((config.view, config.theme), (View::Log, Some(Theme::Light)));
    assert_eq!(config.tables[&View::Log].sort, Some(("age".to_owned(), true)));
    let saved = fs::read_to_string(&path).unwrap();
    assert!(template().lines().all(|line| saved.contains(line)), "{saved}");
}

#[test]
fn a_file_that_makes_no_sense_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("top.toml");
    fs::write(&path, "vieww = 1\n").unwrap();
    assert!(matches!(save(&path, &Ui::default(), None), Err(ConfigError::Line { line: 1, .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "vieww = 1\n");
    fs::write(&path, b"\xff").unwrap();
    assert!(matches!(save(&path, &Ui::default(), None), Err(ConfigError::Read { .. })));
    assert!(matches!(Config::read(&path), Err(ConfigError::Read { .. })));
    // A folder where the file should be.
    let error = save(Path::new("/proc/none/top.toml"), &Ui::default(), None).unwrap_err();
    assert!(error.to_string().starts_with("/proc/none/top.toml: not saved: "), "{error}");
}

#[test]
fn a_link_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real.toml"), folder.path().join("top.toml"));
    fs::write(&real, "# mine\n").unwrap();
    symlink(&real, &link).unwrap();
    save(&link, &Ui { view: View::Log, ..Ui::default() }, None).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Config::read(&real).unwrap().view, View::Log);
}

#[test]
fn the_file_is_where_xdg_says() {
    let with = |pairs: &'static [(&str, &str)]| {
        path(move |name| pairs.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned()))
    };
    let is = |text: &str| Some(PathBuf::from(text));
    assert_eq!(with(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]), is("/x/septwatch/top.toml"));
    assert_eq!(with(&[("XDG_CONFIG_HOME", ""), ("HOME", "/h")]), is("/h/.config/septwatch/top.toml"));
    // XDG: a relative one counts for nothing.
    assert_eq!(with(&[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")]), is("/h/.config/septwatch/top.toml"));
    assert_eq!(with(&[]), None);
    assert_eq!(Config::read(Path::new("/none/such")).unwrap(), Config::default());
}
