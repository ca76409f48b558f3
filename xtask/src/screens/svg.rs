//! A terminal's screen as an SVG.
//!
//! Text is text, in runs of one style, stretched to whole cells whatever the font. Blocks and lines that must meet their
//! neighbours are drawn as shapes: fonts do not agree on them.

use std::{collections::BTreeMap, fmt::Write as _};

use septwatch_pty::{Cell, Color, Screen};

/// A cell, in px.
const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 17.0;
/// Where letters stand in it.
const BASE: f32 = 12.8;
const SIZE: f32 = 14.0;
/// Between the screen and the edge.
const MARGIN: f32 = 12.0;

const GROUND: [u8; 3] = [0x16, 0x18, 0x1d];
const TEXT: [u8; 3] = [0xd6, 0xd9, 0xe0];
/// The 16 that a terminal chooses itself.
const SIXTEEN: [[u8; 3]; 16] = [
    [0x16, 0x18, 0x1d],
    [0xe0, 0x6c, 0x75],
    [0x98, 0xc3, 0x79],
    [0xe5, 0xc0, 0x7b],
    [0x61, 0xaf, 0xef],
    [0xc6, 0x78, 0xdd],
    [0x56, 0xb6, 0xc2],
    [0xab, 0xb2, 0xbf],
    [0x5c, 0x63, 0x70],
    [0xff, 0x7b, 0x86],
    [0xb5, 0xe0, 0x90],
    [0xff, 0xd7, 0x8a],
    [0x7c, 0xc4, 0xff],
    [0xdf, 0x90, 0xf5],
    [0x6f, 0xd2, 0xde],
    [0xff, 0xff, 0xff],
];

/// How a cell looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    color: [u8; 3],
    bold: bool,
    underline: bool,
}

/// The picture. `title` is for those who cannot see it.
pub fn picture(screen: &Screen, title: &str) -> String {
    let (rows, columns) = screen.size();
    let (rows, columns) = (rows.get(), columns.get());
    let mut drawing = Drawing::default();
    for row in 0..rows {
        drawing.row(screen, row, columns);
    }
    let (width, height) = (x(columns) + MARGIN, y(rows) + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" xml:space=\"preserve\" viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\" role=\"img\">\n\
         <title>{}</title>\n\
         <style>text{{font-family:'DejaVu Sans Mono',Menlo,Consolas,'Liberation Mono',monospace;\
         font-size:{SIZE}px;white-space:pre}}.b{{font-weight:bold}}.u{{text-decoration:underline}}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{}\"/>\n",
        px(width),
        px(height),
        px(width),
        px(height),
        escaped(title),
        hex(GROUND),
    );
    for (color, path) in &drawing.fills {
        let _ = writeln!(svg, "<path fill=\"{}\" d=\"{path}\"/>", hex(*color));
    }
    for (color, path) in &drawing.lines {
        let _ = writeln!(svg, "<path fill=\"none\" stroke=\"{}\" d=\"{path}\"/>", hex(*color));
    }
    let _ = write!(svg, "<g fill=\"{}\">\n{}</g>\n</svg>\n", hex(TEXT), drawing.text);
    svg
}

#[derive(Default)]
struct Drawing {
    /// Surfaces by colour; paths.
    fills: BTreeMap<[u8; 3], String>,
    /// Lines by colour.
    lines: BTreeMap<[u8; 3], String>,
    text: String,
}

impl Drawing {
    fn row(&mut self, screen: &Screen, row: u16, columns: u16) {
        let mut run: Option<Run> = None;
        for column in 0..columns {
            let Some(cell) = screen.cell(row, column) else { continue };
            if cell.is_wide_continuation() {
                continue;
            }
            let (look, ground) = look(cell);
            let cells = if cell.is_wide() { 2 } else { 1 };
            if let Some(ground) = ground {
                // A hair wider: no seams between neighbours.
                self.fill(ground, [x(column), y(row), WIDTH * f32::from(cells) + 0.2, HEIGHT]);
            }
            let contents = cell.contents();
            let is_blank = contents.trim().is_empty() && !look.underline;
            if is_blank || self.shape(contents, look.color, column, row) {
                // Blanks inside of a run stay in it: that is shorter than two runs.
                if let Some(open) = run.as_mut().filter(|_| is_blank) {
                    open.blanks += 1;
                } else {
                    self.end(run.take(), row);
                }
                continue;
            }
            let goes_on = run.as_ref().is_some_and(|open| open.look == look && open.blanks <= 3);
            if !goes_on {
                self.end(run.take(), row);
            }
            let open = run.get_or_insert(Run { column, cells: 0, blanks: 0, look, text: String::new() });
            open.text.extend(std::iter::repeat_n(' ', usize::from(open.blanks)));
            open.cells += open.blanks + cells;
            open.blanks = 0;
            open.text.push_str(if contents.is_empty() { " " } else { contents });
        }
        self.end(run, row);
    }

    fn end(&mut self, run: Option<Run>, row: u16) {
        let Some(Run { column, cells, look, text, .. }) = run else { return };
        let mut class = String::new();
        if look.bold || look.underline {
            let both = [(look.bold, "b"), (look.underline, "u")];
            let names: Vec<_> = both.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
            class = format!(" class=\"{}\"", names.join(" "));
        }
        let fill = if look.color == TEXT { String::new() } else { format!(" fill=\"{}\"", hex(look.color)) };
        let _ = writeln!(
            self.text,
            "<text x=\"{}\" y=\"{}\" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\"{class}{fill}>{}</text>",
            px(x(column)),
            px(y(row) + BASE),
            px(f32::from(cells) * WIDTH),
            escaped(&text),
        );
    }

    fn fill(&mut self, color: [u8; 3], [x, y, width, height]: [f32; 4]) {
        let path = self.fills.entry(color).or_default();
        let _ = write!(path, "M{} {}h{}v{}h{}z", px(x), px(y), px(width), px(height), px(-width));
    }

    /// Draws what is no letter; false: it is one.
    fn shape(&mut self, contents: &str, color: [u8; 3], column: u16, row: u16) -> bool {
        let mut chars = contents.chars();
        let (Some(sign), None) = (chars.next(), chars.next()) else { return false };
        let (left, top) = (x(column), y(row));
        let number = u32::from(sign);
        match number {
            // Eighths from below, and from the left.
            0x2581..=0x2588 => {
                let height = HEIGHT * (number - 0x2580) as f32 / 8.0;
                self.fill(color, [left, top + HEIGHT - height, WIDTH, height]);
            }
            0x2589..=0x258f => {
                let width = WIDTH * (0x2590 - number) as f32 / 8.0;
                self.fill(color, [left, top + 1.0, width, HEIGHT - 2.0]);
            }
            0x2580 => self.fill(color, [left, top, WIDTH, HEIGHT / 2.0]),
            // Shades, as that much of a block.
            0x2591..=0x2593 => {
                let share = (number - 0x2590) as u8;
                let mix = |at: usize| {
                    let (own, ground) = (u16::from(color[at]), u16::from(GROUND[at]));
                    ((own * u16::from(share) + ground * u16::from(4 - share)) / 4) as u8
                };
                self.fill([mix(0), mix(1), mix(2)], [left, top + 1.0, WIDTH, HEIGHT - 2.0]);
            }
            0x25a0 => self.fill(color, [left + 1.0, top + 5.0, WIDTH - 2.0, WIDTH - 2.0]),
            // Braille: two columns of four dots, in Unicode's order.
            0x2800..=0x28ff => {
                const DOTS: [[u8; 2]; 8] = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [0, 3], [1, 3]];
                for (bit, [across, down]) in DOTS.into_iter().enumerate() {
                    if number >> bit & 1 == 1 {
                        let dot = [
                            left + WIDTH * (0.25 + 0.5 * f32::from(across)) - 0.9,
                            top + HEIGHT * (0.125 + 0.25 * f32::from(down)) - 0.9,
                            1.8,
                            1.8,
                        ];
                        self.fill(color, dot);
                    }
                }
            }
            _ => {
                let Some(arms) = arms(sign) else { return false };
                let (middle, centre) = (left + WIDTH / 2.0, top + HEIGHT / 2.0);
                let path = self.lines.entry(color).or_default();
                for (arm, to) in arms.into_iter().zip([(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)]) {
                    if arm {
                        let _ = write!(
                            path,
                            "M{} {}l{} {}",
                            px(middle),
                            px(centre),
                            px(to.0 * WIDTH / 2.0),
                            px(to.1 * HEIGHT / 2.0)
                        );
                    }
                }
            }
        }
        true
    }
}

/// Letters of one look, side by side.
struct Run {
    column: u16,
    cells: u16,
    /// Behind them, so far.
    blanks: u16,
    look: Look,
    text: String,
}

/// Where a line of a box goes from the middle of its cell: up, right, down, left.
fn arms(sign: char) -> Option<[bool; 4]> {
    let arms = match sign {
        '─' | '━' => 0b0101,
        '│' | '┃' => 0b1010,
        '┌' | '╭' => 0b0110,
        '┐' | '╮' => 0b0011,
        '└' | '╰' => 0b1100,
        '┘' | '╯' => 0b1001,
        '├' => 0b1110,
        '┤' => 0b1011,
        '┬' => 0b0111,
        '┴' => 0b1101,
        '┼' => 0b1111,
        _ => return None,
    };
    Some([arms & 8 != 0, arms & 4 != 0, arms & 2 != 0, arms & 1 != 0])
}

/// How a cell looks, and the colour behind it where that is not the screen's.
fn look(cell: &Cell) -> (Look, Option<[u8; 3]>) {
    let (mut color, mut ground) = (rgb(cell.fgcolor(), TEXT), rgb(cell.bgcolor(), GROUND));
    if cell.inverse() {
        std::mem::swap(&mut color, &mut ground);
    }
    if cell.dim() {
        let mix = |at: usize| ((u16::from(color[at]) * 3 + u16::from(ground[at]) * 2) / 5) as u8;
        color = [mix(0), mix(1), mix(2)];
    }
    let look = Look { color, bold: cell.bold(), underline: cell.underline() };
    (look, (ground != GROUND).then_some(ground))
}

fn rgb(color: Color, default: [u8; 3]) -> [u8; 3] {
    match color {
        Color::Default => default,
        Color::Rgb(red, green, blue) => [red, green, blue],
        Color::Idx(index @ 0..16) => SIXTEEN[usize::from(index)],
        Color::Idx(index @ 232..) => [8 + 10 * (index - 232); 3],
        Color::Idx(index) => {
            let at = index - 16;
            [at / 36, at / 6 % 6, at % 6].map(|part| if part == 0 { 0 } else { 55 + 40 * part })
        }
    }
}

fn x(column: u16) -> f32 {
    MARGIN + f32::from(column) * WIDTH
}

fn y(row: u16) -> f32 {
    MARGIN + f32::from(row) * HEIGHT
}

/// To a tenth, and no longer than it must be.
fn px(value: f32) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn hex([red, green, blue]: [u8; 3]) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // Nothing else is forbidden in XML 1.0 that a screen could hold.
            sign if sign.is_control() => {}
            sign => escaped.push(sign),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use std::process::Command;

    use septwatch_pty::Terminal;

    use super::*;

    fn of(bytes: &str) -> String {
        let mut command = Command::new("printf");
        command.arg(bytes);
        let mut terminal = Terminal::start(command, 30, 4).unwrap();
        terminal.wait().unwrap();
        picture(&terminal.screen(), "a <title>")
    }

    #[test]
    fn text_is_escaped_and_stands_in_its_cells() {
        let svg = of("a<b&c>  d     far");
        assert!(svg.contains("<title>a &lt;title&gt;</title>"), "{svg}");
        // Few blanks stay in the run, many begin another.
        assert!(svg.contains(r#"x="12" y="24.8" textLength="75.6" lengthAdjust="spacingAndGlyphs">a&lt;b&amp;c&gt;  d</text>"#), "{svg}");
        assert!(svg.contains(r#"x="129.6""#) && svg.contains(">far</text>"), "{svg}");
        assert_eq!(svg, of("a<b&c>  d     far"));
    }

    #[test]
    fn colours_are_those_of_the_terminal() {
        let svg = of("\x1b[1;38;5;203mred\x1b[m\x1b[7mturned");
        assert!(svg.contains(r##"class="b" fill="#ff5f5f">red<"##), "{svg}");
        let turned = format!(r#"fill="{}">turned<"#, hex(GROUND));
        assert!(
            svg.contains(&turned) && svg.contains(&format!("<path fill=\"{}\" d=\"M37.2 12", hex(TEXT))),
            "{svg}"
        );
    }

    #[test]
    fn blocks_and_lines_are_shapes() {
        let svg = of("\u{2588}\u{2584}\u{2500}\u{2502}");
        assert!(!svg.contains("<text"), "{svg}");
        assert!(svg.contains("M12 12h8.4v17h-8.4z") && svg.contains("M20.4 20.5h8.4v8.5h-8.4z"), "{svg}");
        assert!(svg.contains("stroke="), "{svg}");
    }
}
