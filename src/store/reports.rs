//! Reads sums for the reports: the packed cells of the buckets that are asked for, summed as far as the report wants.

mod directory;
#[cfg(test)]
pub(crate) mod seed;
mod sums;
#[cfg(test)]
mod tests;

use sqlx::{AssertSqlSafe, SqliteExecutor};

use self::sums::Sums;
use super::{Store, StoreError};
use crate::domain::report::{Piece, Row, Selection};

pub(super) use directory::Directory;

/// Parts of rollups by the start of their bucket.
pub(super) type Parts = Vec<(i64, Vec<u8>)>;

/// The sums that a selection asks for, by bucket.
pub async fn rows(store: &Store, selection: &Selection) -> Result<Vec<Row>, StoreError> {
    let parts = parts(store.reader(), selection).await?;
    summed(store, selection, parts).await
}

/// The sums of parts that were read for a selection.
pub(super) async fn summed(store: &Store, selection: &Selection, parts: Parts) -> Result<Vec<Row>, StoreError> {
    // Read afterwards: it holds every key and tariff that the parts can name.
    let directory = store.directory().await?;
    let selection = selection.clone();
    // Many buckets of many keys take milliseconds, which are not to be taken from requests.
    tokio::task::spawn_blocking(move || Sums::new(&selection, &directory).of(parts)).await?
}

/// One statement for all pieces, so that they are of one moment.
pub(super) async fn parts(database: impl SqliteExecutor<'_>, selection: &Selection) -> Result<Parts, StoreError> {
    let pieces = selection.pieces.iter();
    let detail = |piece: &Piece| selection.detail(piece.width).number();
    let pieces: Vec<_> =
        pieces.map(|piece| (detail(piece), piece.width.seconds(), piece.range.start_s, piece.range.end_s)).collect();
    let pieces = serde_json::to_string(&pieces).map_err(|error| sqlx::Error::Encode(error.into()))?;
    Ok(sqlx::query_as(AssertSqlSafe(PARTS)).bind(pieces).fetch_all(database).await?)
}

/// `CROSS JOIN` keeps the order of the tables: for each piece one range of the primary key.
const PARTS: &str = "SELECT r.bucket_start_s, r.cells
     FROM (SELECT value ->> 0 AS detail, value ->> 1 AS width_s, value ->> 2 AS start_s, value ->> 3 AS end_s
           FROM json_each(?1)) pieces
     CROSS JOIN rollups r ON r.detail = pieces.detail AND r.width_s = pieces.width_s
         AND r.bucket_start_s >= pieces.start_s AND r.bucket_start_s < pieces.end_s";
