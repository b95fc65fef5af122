//! When keys were last used. Not a change that anybody makes, so it leaves no row in the audit log; and a minute of it that
//! is lost with the power is no harm, so it waits for no disk.

use super::{Store, StoreError};

/// Ids of keys with the Unix second of their last use. An earlier time than the stored one changes nothing.
pub async fn save(store: &Store, uses: &[(String, u64)]) -> Result<(), StoreError> {
    let uses = serde_json::to_string(uses).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO last_used (key_id, used_at_s) SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE true \
         ON CONFLICT (key_id) DO UPDATE SET used_at_s = max(used_at_s, excluded.used_at_s)",
    )
    .bind(uses)
    .execute(store.writer())
    .await?;
    Ok(())
}

/// Of one key, by id.
pub async fn of(store: &Store, key_id: &str) -> Result<Option<u64>, StoreError> {
    let found: Option<i64> = sqlx::query_scalar("SELECT used_at_s FROM last_used WHERE key_id = ?")
        .bind(key_id)
        .fetch_optional(store.reader())
        .await?;
    Ok(found.and_then(|seconds| u64::try_from(seconds).ok()))
}
