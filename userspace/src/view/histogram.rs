//! A histogram as text.

use super::lines::span;
use crate::model::histogram::Octave;

/// Longest bar, in characters.
const WIDTH: u64 = 40;

/// A row for each power of two: where it begins and ends, a bar, and how many. The fullest has the longest bar, and none
/// that has any is without.
pub fn rows(octaves: &[Octave]) -> Vec<String> {
    let fullest = octaves.iter().map(|octave| octave.count).max().unwrap_or(0).max(1);
    octaves
        .iter()
        .map(|Octave { from_ns, count }| {
            // Counts of 2^58 and more cannot be.
            let bar = "#".repeat((count * WIDTH).div_ceil(fullest) as usize);
            let (from, to) = (span(*from_ns), span(from_ns.saturating_mul(2)));
            format!("{from:>9} to {to:>9} |{bar:<40} {count}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_there_are_many() {
        let octave = |from_ns, count| Octave { from_ns, count };
        let rows = rows(&[octave(512, 1), octave(1024, 1000), octave(2048, 0), octave(4096, 500)]);
        let bars: Vec<_> = rows.iter().map(|row| row.matches('#').count()).collect();
        assert_eq!(bars, [1, 40, 0, 20]);
        assert_eq!(rows[0], format!("   512 ns to    1.0 us |#{:39} 1", ""));
        assert!(rows.iter().all(|row| row.is_ascii()));
    }

    #[test]
    fn nothing_has_no_rows() {
        assert_eq!(rows(&[]), Vec::<String>::new());
    }
}
