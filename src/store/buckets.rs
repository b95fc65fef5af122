//! The buckets of the limits, as the projector last saw them.

use std::sync::{Arc, LazyLock};

use sqlx::SqliteConnection;

use super::{Store, StoreError, statement::Insert};
use crate::domain::{ids::KeyId, limits::Dimension, time::UnixNanos};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBucket {
    pub key_id: KeyId,
    pub limit_group: Arc<str>,
    pub dimension: Dimension,
    /// As in [`crate::domain::bucket::Bucket::arrival`].
    pub arrival: UnixNanos,
}

static UPSERT: LazyLock<Insert> = LazyLock::new(|| {
    Insert::new(
        "INSERT INTO limit_buckets (key_id, limit_group, dimension, arrival_at)",
        4,
        "ON CONFLICT DO UPDATE SET arrival_at = excluded.arrival_at",
    )
});

impl Store {
    /// For the limiter to restore at the start, after the projector has caught up.
    pub async fn limit_buckets(&self) -> Result<Vec<StoredBucket>, StoreError> {
        let rows: Vec<(String, String, String, i64)> =
            sqlx::query_as("SELECT key_id, limit_group, dimension, arrival_at FROM limit_buckets")
                .fetch_all(&self.reader)
                .await?;
        rows.into_iter().map(read).collect()
    }
}

fn read((key_id, limit_group, dimension, arrival): (String, String, String, i64)) -> Result<StoredBucket, StoreError> {
    let Some(known) = Dimension::ALL.into_iter().find(|known| known.name() == dimension) else {
        return Err(StoreError::Unreadable(dimension));
    };
    Ok(StoredBucket {
        key_id: KeyId::parse(&key_id).ok_or(StoreError::Unreadable(key_id))?,
        limit_group: limit_group.into(),
        dimension: known,
        arrival: UnixNanos(u64::try_from(arrival).unwrap_or(0)),
    })
}

pub(super) async fn write(connection: &mut SqliteConnection, buckets: &[StoredBucket]) -> Result<(), StoreError> {
    for (sql, piece) in UPSERT.pieces(buckets) {
        let mut query = sqlx::query(sql);
        for bucket in piece {
            // A debt that lasts beyond the year 2262 is as good as one that ends then.
            let arrival = i64::try_from(bucket.arrival.0).unwrap_or(i64::MAX);
            query = query
                .bind(bucket.key_id.as_str())
                .bind(&*bucket.limit_group)
                .bind(bucket.dimension.name())
                .bind(arrival);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
