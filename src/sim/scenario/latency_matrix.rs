//! [`LatencyMatrix`]: measured round trips between nodes.

use core::fmt;
use core::time::Duration;

/// Measured round trips from each of some nodes to each other: as of the King data set, or of `RIPE Atlas`.
#[derive(Clone, PartialEq, Eq)]
pub struct LatencyMatrix {
    size: u32,
    /// Microseconds, row by row.
    micros: Box<[u32]>,
}

impl fmt::Debug for LatencyMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LatencyMatrix of {} nodes", self.size)
    }
}

/// Why a text is no [`LatencyMatrix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

impl fmt::Display for MatrixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl core::error::Error for MatrixError {}

impl LatencyMatrix {
    /// Reads a square matrix: in each line a row of milliseconds, with blanks, commas or semicolons between them. Empty
    /// lines and those that begin with `#` are skipped. At most 16,384 rows, and an hour for each pair. A negative number, or `-`, is a pair that was not measured: it has
    /// the median of those that were. Nodes that share a row are as far apart as the two nearest of the others.
    ///
    /// # Errors
    /// [`MatrixError`] naming the line.
    pub fn parse(text: &str) -> Result<Self, MatrixError> {
        const LONGEST: f64 = 3_600_000.0;
        let rows: Vec<(usize, &str)> = text
            .lines()
            .enumerate()
            .filter(|(_, row)| !row.trim().is_empty() && !row.starts_with('#'))
            .collect();
        let size = rows.len();
        let wrong = |line: usize, reason| MatrixError { line: line + 1, reason };
        let small = u32::try_from(size).ok().filter(|size| (1..=16_384).contains(size));
        let Some(small) = small else { return Err(wrong(0, "must have 1 to 16,384 rows")) };
        let mut times = Vec::with_capacity(size * size);
        for (line, row) in rows {
            let before = times.len();
            for field in row.split([' ', '\t', ',', ';']).filter(|field| !field.is_empty()) {
                let time = if field == "-" { Ok(-1.0) } else { field.parse::<f64>() };
                match time {
                    Ok(ms) if ms <= LONGEST => times.push(ms),
                    _ => return Err(wrong(line, "holds a field that is no number of milliseconds")),
                }
            }
            if times.len() - before != size {
                return Err(wrong(line, "must have as many numbers as there are rows"));
            }
        }
        let off_diagonal = times.iter().enumerate().filter(|(place, _)| place / size != place % size);
        let mut measured: Vec<f64> = off_diagonal.map(|(_, ms)| *ms).filter(|ms| *ms > 0.0).collect();
        measured.sort_unstable_by(f64::total_cmp);
        let median = measured.get(measured.len() / 2).copied().unwrap_or_default();
        let least = measured.first().copied().unwrap_or_default();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to an hour
        let micros = |(place, ms): (usize, f64)| {
            let ms = if place / size == place % size {
                least
            } else if ms < 0.0 {
                median
            } else {
                ms
            };
            (ms * 1e3) as u32
        };
        Ok(Self { size: small, micros: times.into_iter().enumerate().map(micros).collect() })
    }

    /// How many nodes were measured.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// The round trip between the nodes with these numbers.
    pub fn between(&self, from: u32, to: u32) -> Duration {
        let place = (from % self.size) as usize * self.size as usize + (to % self.size) as usize;
        Duration::from_micros(u64::from(self.micros.get(place).copied().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_read_as_it_stands() {
        let matrix = LatencyMatrix::parse("# three nodes\n0 10.5 -1\n\n10,0,80\n- 80\t0\n")
            .unwrap_or_else(|_| unreachable!());
        let ms = |from, to| matrix.between(from, to).as_secs_f64() * 1e3;
        assert_eq!((matrix.size(), ms(0, 1), ms(1, 0), ms(1, 2)), (3, 10.5, 10.0, 80.0));
        // Not measured: the median. The same row: the least. Further nodes share rows.
        assert_eq!((ms(0, 2), ms(1, 1), ms(3, 4), ms(301, 302)), (80.0, 10.0, 10.5, 80.0));
    }

    #[test]
    fn a_mistake_is_named_by_its_line() {
        for (text, line) in [("", 1), ("1 2\n3 4 5\n", 2), ("1 2\n# and\n3 x\n", 3), ("1 2\n3 1e99\n", 2)] {
            assert_eq!(LatencyMatrix::parse(text).map_err(|error| error.line), Err(line), "{text:?}");
        }
    }
}
