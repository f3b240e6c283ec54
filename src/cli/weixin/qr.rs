//! A QR code on a terminal: two modules in a character, with half blocks.

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code; phones need them.
const QUIET: usize = 2;
/// Black on white, whatever the colours of the terminal are.
const COLOURS: (&str, &str) = ("\u{1b}[38;5;16;48;5;231m", "\u{1b}[0m");

/// Draws a code, one line of text for two of modules. In colour its dark modules are black on every terminal; without,
/// they are as dark as the background of a dark one, and phones read the reverse as well.
///
/// `None` if the content is too long for any code.
pub(super) fn draw(content: &str, in_colour: bool) -> Option<String> {
    let code = QrCode::with_error_correction_level(content, EcLevel::L).ok()?;
    let width = code.width();
    let is_dark = |x: usize, y: usize| {
        let inside = (QUIET..QUIET + width).contains(&x) && (QUIET..QUIET + width).contains(&y);
        inside && code[(x - QUIET, y - QUIET)] == Color::Dark
    };
    let side = width + 2 * QUIET;
    let mut picture = String::new();
    for y in (0..side).step_by(2) {
        let mut line: String = (0..side).map(|x| character(is_dark(x, y), is_dark(x, y + 1), in_colour)).collect();
        if in_colour {
            line = format!("{}{line}{}", COLOURS.0, COLOURS.1);
        }
        picture.push_str(&line);
        picture.push('\n');
    }
    Some(picture)
}

/// Two modules, one above the other. In colour a block is dark, without it is light.
fn character(upper: bool, lower: bool, in_colour: bool) -> char {
    match (upper == in_colour, lower == in_colour) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The modules of a picture again, row by row.
    fn modules(picture: &str, in_colour: bool) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in picture.lines() {
            let line = line.trim_start_matches(COLOURS.0).trim_end_matches(COLOURS.1);
            let half = |c: char, block: char| (c == '█' || c == block) == in_colour;
            rows.push(line.chars().map(|c| half(c, '▀')).collect());
            rows.push(line.chars().map(|c| half(c, '▄')).collect());
        }
        rows
    }

    proptest! {
        // Each code is made twice, and slowly.
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_picture_has_the_modules_of_its_code(content in "[ -~]{1,80}", in_colour in any::<bool>()) {
            let picture = draw(&content, in_colour).expect("short enough");
            let rows = modules(&picture, in_colour);
            let code = QrCode::with_error_correction_level(&content, EcLevel::L).expect("short enough");
            for (y, row) in rows.iter().enumerate().take(code.width() + 2 * QUIET) {
                for (x, is_dark) in row.iter().enumerate() {
                    let inside = x.checked_sub(QUIET).zip(y.checked_sub(QUIET))
                        .filter(|(x, y)| *x < code.width() && *y < code.width());
                    prop_assert_eq!(*is_dark, inside.is_some_and(|at| code[at] == Color::Dark));
                }
            }
        }
    }

    #[test]
    fn what_no_code_can_hold_is_not_drawn() {
        assert_eq!(draw(&"x".repeat(5000), false), None);
    }
}
