//! The ledger: an entry per finished request, its sums, and how far the journal is in here, all in one transaction.

use std::{collections::HashSet, path::Path, sync::LazyLock};

use sqlx::{Connection as _, SqliteConnection, query::Query, sqlite::Sqlite, sqlite::SqliteArguments};

use super::{
    Store, StoreError,
    buckets::{self, StoredBucket},
    names::Names,
    rollups::Rollups,
    statement::Insert,
};
use crate::{
    domain::{held::Held, ids::RequestId, ledger::Entry, usage::LineItem},
    journal::Position,
};

/// A stretch of the journal, as the ledger takes it over.
#[derive(Clone, Debug, Default)]
pub struct LedgerBatch {
    pub entries: Vec<Entry>,
    pub buckets: Vec<StoredBucket>,
    /// Where the ledger is before; it refuses a batch that does not begin there.
    pub from: Option<Position>,
    /// Where the ledger is afterwards.
    pub up_to: Position,
}

/// An entry in numbers, as its row and its rollups need it.
pub(super) struct Row<'e> {
    pub entry: &'e Entry,
    pub api_key: i64,
    pub tariff: i64,
    ending: i64,
    terms: i64,
}

const FIXED_COLUMNS: usize = 8;

static INSERT: LazyLock<Insert> = LazyLock::new(|| {
    let items = LineItem::ALL.map(LineItem::name).join(", ");
    let head = format!(
        "INSERT INTO entries (request_id, api_key, tariff, ending, admitted_at_ms, duration_ms, {items}, terms, \
         held)"
    );
    Insert::new(&head, FIXED_COLUMNS + LineItem::COUNT, "")
});

static KNOWN: LazyLock<[String; 2]> = LazyLock::new(|| {
    [64, 1].map(|n| {
        let ids: Vec<_> = (1..=n).map(|n| format!("?{n}")).collect();
        let of = |table: &str| format!("SELECT request_id FROM {table} WHERE request_id IN ({})", ids.join(","));
        format!("{} UNION ALL {}", of("entries"), of("dropped"))
    })
});

impl Store {
    /// How far the journal is in the ledger; `None` in a new database.
    pub async fn projection(&self) -> Result<Option<Position>, StoreError> {
        let mut connection = self.writer.acquire().await?;
        projection(&mut connection).await
    }

    /// The same of a database file that another process may be writing.
    pub async fn projection_in(path: &Path) -> Result<Option<Position>, StoreError> {
        let mut connection = Self::connect_to_read(path).await?;
        let position = projection(&mut connection).await?;
        connection.close().await?;
        Ok(position)
    }

    /// Takes a batch over, whole or not at all. Entries that are already there are left as they are.
    pub async fn append(&self, batch: &LedgerBatch) -> Result<(), StoreError> {
        let mut names = self.take_names();
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let stored = projection(&mut transaction).await?;
        if stored != batch.from {
            let (stored, expected) = (stored.unwrap_or_default(), batch.from.unwrap_or_default());
            return Err(StoreError::Moved { stored, expected });
        }
        move_projection(&mut transaction, batch.up_to).await?;
        let mut known = known(&mut transaction, &batch.entries).await?;
        let mut rows = Vec::with_capacity(batch.entries.len());
        for entry in batch.entries.iter().filter(|entry| known.insert(entry.settlement.request_id)) {
            rows.push(row(&mut transaction, &mut names, entry).await?);
        }
        insert(&mut transaction, &rows).await?;
        Rollups::of(&rows)?.write(&mut transaction).await?;
        buckets::write(&mut transaction, &batch.buckets).await?;
        transaction.commit().await?;
        self.remember(names);
        Ok(())
    }
}

async fn projection(connection: &mut SqliteConnection) -> Result<Option<Position>, StoreError> {
    let row: Option<(i64, i64)> =
        sqlx::query_as("SELECT segment, offset FROM projection").fetch_optional(connection).await?;
    let position = |(segment, offset): (i64, i64)| {
        let position = u64::try_from(segment).ok().zip(u64::try_from(offset).ok());
        let position = position.map(|(segment, offset)| Position { segment, offset });
        position.ok_or_else(|| StoreError::Unreadable(format!("{segment}, {offset}")))
    };
    row.map(position).transpose()
}

async fn move_projection(connection: &mut SqliteConnection, up_to: Position) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO projection (id, segment, offset) VALUES (1, ?, ?)
         ON CONFLICT DO UPDATE SET segment = excluded.segment, offset = excluded.offset",
    )
    .bind(i64::try_from(up_to.segment).map_err(|_| StoreError::SumOverflow)?)
    .bind(i64::try_from(up_to.offset).map_err(|_| StoreError::SumOverflow)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// After a power failure the journal may have lost an end that the ledger has, and its requests come again as
/// interrupted: the first entry of a request stands, even if it was dropped since.
async fn known(connection: &mut SqliteConnection, entries: &[Entry]) -> Result<HashSet<RequestId>, StoreError> {
    let mut known = HashSet::new();
    for piece in entries.chunks(64) {
        let [many, one] = &*KNOWN;
        let (sql, pieces) = if piece.len() == 64 { (many, 64) } else { (one, 1) };
        for piece in piece.chunks(pieces) {
            let mut query = sqlx::query_scalar(sql.as_str());
            for entry in piece {
                query = query.bind(entry.settlement.request_id.to_bytes().to_vec());
            }
            let found: Vec<Vec<u8>> = query.fetch_all(&mut *connection).await?;
            known.extend(found.iter().filter_map(|id| id.as_slice().try_into().ok()).map(RequestId::from_bytes));
        }
    }
    if !known.is_empty() {
        tracing::warn!(
            requests = known.len(),
            "the journal brought requests again that the ledger has, or had: they are not counted twice"
        );
    }
    Ok(known)
}

async fn row<'e>(
    connection: &mut SqliteConnection,
    names: &mut Names,
    entry: &'e Entry,
) -> Result<Row<'e>, StoreError> {
    let (admission, settlement) = (&entry.admission, &entry.settlement);
    let tariff = entry.tariff();
    // A cost that cannot be summed is refused here, not when somebody asks.
    tariff.cost(&settlement.usage).map_err(|_| StoreError::Overflow(settlement.request_id))?;
    Ok(Row {
        entry,
        api_key: names.key(connection, &admission.key_id).await?,
        tariff: names.tariff(connection, &tariff).await?,
        ending: names.ending(connection, entry).await?,
        terms: names.terms(connection, &admission.hold).await?,
    })
}

async fn insert(connection: &mut SqliteConnection, rows: &[Row<'_>]) -> Result<(), StoreError> {
    for (sql, piece) in INSERT.pieces(rows) {
        let mut query = sqlx::query(sql);
        for row in piece {
            query = bind(query, row)?;
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

fn bind<'q>(query: Bound<'q>, row: &Row<'_>) -> Result<Bound<'q>, StoreError> {
    let (admission, settlement) = (&row.entry.admission, &row.entry.settlement);
    let whole = |number: u64| i64::try_from(number).map_err(|_| StoreError::Overflow(settlement.request_id));
    let (admitted_at_ms, settled_at_ms) =
        (whole(admission.admitted_at.millis())?, whole(settlement.settled_at.millis())?);
    let query = query
        .bind(settlement.request_id.to_bytes().to_vec())
        .bind(row.api_key)
        .bind(row.tariff)
        .bind(row.ending)
        .bind(admitted_at_ms)
        .bind(settled_at_ms - admitted_at_ms);
    let quantities = LineItem::ALL.map(|item| settlement.usage.get(item));
    let query = quantities.into_iter().try_fold(query, |query, n| whole(n).map(|n| query.bind(n)))?;
    Ok(query.bind(row.terms).bind(Held::of(admission).pack()))
}
