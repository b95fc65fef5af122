//! Inserts of many rows: a few fixed sizes, so that each is prepared once.

/// Rows per statement, largest first.
const SIZES: [usize; 3] = [64, 8, 1];

/// One `INSERT` in each size.
pub(super) struct Insert([String; SIZES.len()]);

impl Insert {
    /// `head` ends before `VALUES`; `tail` is the conflict clause or empty.
    pub(super) fn new(head: &str, columns: usize, tail: &str) -> Self {
        let row = format!("({})", vec!["?"; columns].join(","));
        Self(SIZES.map(|rows| format!("{head} VALUES {} {tail}", vec![row.as_str(); rows].join(","))))
    }

    /// Cuts `rows` into pieces that fit a statement, each with its SQL.
    pub(super) fn pieces<'r, T>(&'static self, mut rows: &'r [T]) -> impl Iterator<Item = (&'static str, &'r [T])> {
        std::iter::from_fn(move || {
            let sql = SIZES.iter().zip(&self.0).find(|(size, _)| **size <= rows.len());
            let (size, sql) = sql?;
            let (piece, rest) = rows.split_at_checked(*size)?;
            rows = rest;
            Some((sql.as_str(), piece))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    #[test]
    fn every_row_is_in_exactly_one_piece() {
        static INSERT: LazyLock<Insert> = LazyLock::new(|| Insert::new("INSERT INTO t (a, b)", 2, ""));
        for rows in [0, 1, 7, 8, 9, 64, 65, 200] {
            let rows: Vec<usize> = (0..rows).collect();
            let pieces: Vec<_> = INSERT.pieces(&rows).collect();
            assert_eq!(pieces.iter().flat_map(|(_, piece)| piece.iter().copied()).collect::<Vec<_>>(), rows);
            assert!(pieces.iter().all(|(sql, piece)| sql.matches("(?,?)").count() == piece.len()));
        }
    }
}
