//! The buckets of the limits, as the projector last saw them.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use sqlx::SqliteConnection;

use super::{Store, StoreError, statement::Insert};
use crate::domain::{
    bucket::Level,
    ids::{KeyId, ProjectId},
    limits::Dimension,
    time::UnixNanos,
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBucket {
    pub project_id: ProjectId,
    /// `None`: the project's own, that all its keys share.
    pub key_id: Option<KeyId>,
    pub limit_group: Arc<str>,
    pub dimension: Dimension,
    pub level: Level,
}

static UPSERT: LazyLock<Insert> = LazyLock::new(|| {
    Insert::new(
        "INSERT INTO limit_buckets (project_id, key_id, limit_group, dimension, arrival_at, unit_nanos)",
        6,
        "ON CONFLICT DO UPDATE SET arrival_at = excluded.arrival_at, unit_nanos = excluded.unit_nanos",
    )
});

type Row = (String, String, String, String, i64, i64);

impl Store {
    /// For the limiter to restore at the start, after the projector has caught up.
    pub async fn limit_buckets(&self) -> Result<Vec<StoredBucket>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT project_id, key_id, limit_group, dimension, arrival_at, unit_nanos FROM limit_buckets",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.into_iter().map(read).collect()
    }

    /// Whose these keys are.
    pub(super) async fn projects_of(&self, keys: Vec<KeyId>) -> Result<HashMap<KeyId, ProjectId>, StoreError> {
        let mut projects = HashMap::with_capacity(keys.len());
        for key in keys {
            let project: Option<String> = sqlx::query_scalar("SELECT project_id FROM api_keys WHERE id = ?")
                .bind(key.as_str())
                .fetch_optional(&self.reader)
                .await?;
            if let Some(project) = project {
                projects.insert(key, ProjectId::parse(&project).ok_or(StoreError::Unreadable(project))?);
            }
        }
        Ok(projects)
    }
}

fn read((project_id, key_id, limit_group, dimension, arrival, unit_nanos): Row) -> Result<StoredBucket, StoreError> {
    let Some(known) = Dimension::ALL.into_iter().find(|known| known.name() == dimension) else {
        return Err(StoreError::Unreadable(dimension));
    };
    let key_id = match key_id.as_str() {
        "" => None,
        id => Some(KeyId::parse(id).ok_or_else(|| StoreError::Unreadable(id.to_owned()))?),
    };
    let whole = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(StoredBucket {
        project_id: ProjectId::parse(&project_id).ok_or(StoreError::Unreadable(project_id))?,
        key_id,
        limit_group: limit_group.into(),
        dimension: known,
        level: Level { arrival: UnixNanos(whole(arrival)), unit_nanos: whole(unit_nanos) },
    })
}

pub(super) async fn write(connection: &mut SqliteConnection, buckets: &[StoredBucket]) -> Result<(), StoreError> {
    for (sql, piece) in UPSERT.pieces(buckets) {
        let mut query = sqlx::query(sql);
        for bucket in piece {
            // A debt that lasts beyond the year 2262 is as good as one that ends then.
            let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            query = query
                .bind(bucket.project_id.as_str())
                .bind(bucket.key_id.as_ref().map_or("", KeyId::as_str))
                .bind(&*bucket.limit_group)
                .bind(bucket.dimension.name())
                .bind(whole(bucket.level.arrival.0))
                .bind(whole(bucket.level.unit_nanos));
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
