//! The ledger: an entry per finished request, its sums, and how far the journal is in here, all in one transaction.

use std::{collections::HashSet, sync::LazyLock};

use sqlx::{SqliteConnection, query::Query, sqlite::Sqlite, sqlite::SqliteArguments};

use super::{
    Store, StoreError,
    buckets::{self, StoredBucket},
    names::Names,
    rollups::Rollups,
    statement::Insert,
};
use crate::{
    domain::{
        ids::RequestId,
        ledger::Entry,
        time::UnixNanos,
        usage::{LineItem, Usage},
    },
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
    pub endpoint: i64,
    pub model: i64,
    requested_model: i64,
    pub service_tier: i64,
    outcome: i64,
    basis: i64,
    pub quantities: [i64; LineItem::COUNT],
    pub amounts: [i64; LineItem::COUNT],
    cost: Option<i64>,
    pub priced: bool,
}

const COLUMNS: usize = 15 + LineItem::COUNT;

static INSERT: LazyLock<Insert> = LazyLock::new(|| {
    let items = LineItem::ALL.map(LineItem::name).join(", ");
    let head = format!(
        "INSERT INTO entries (request_id, api_key, endpoint, model, requested_model, service_tier, outcome, basis, status, \
         stream, admitted_at_ms, settled_at_ms, prices_from_s, {items}, cost_pico, priced)"
    );
    Insert::new(&head, COLUMNS, "")
});

static KNOWN: LazyLock<[String; 2]> = LazyLock::new(|| {
    [64, 1].map(|n| format!("SELECT request_id FROM entries WHERE request_id IN ({})", vec!["?"; n].join(",")))
});

impl Store {
    /// How far the journal is in the ledger; `None` in a new database.
    pub async fn projection(&self) -> Result<Option<Position>, StoreError> {
        let mut connection = self.writer.acquire().await?;
        projection(&mut connection).await
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
/// interrupted: the first entry of a request stands.
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
            "the journal brought requests again that the ledger has: they are not counted twice"
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
    let (amounts, cost, priced) = priced(entry)?;
    Ok(Row {
        entry,
        api_key: names.key(connection, &admission.key_id).await?,
        endpoint: names.name(connection, &admission.endpoint).await?,
        model: names.name(connection, &settlement.billed_model).await?,
        requested_model: names.name(connection, &admission.model).await?,
        service_tier: names.name(connection, settlement.service_tier.name()).await?,
        outcome: names.name(connection, settlement.outcome.name()).await?,
        basis: names.name(connection, settlement.basis.name()).await?,
        quantities: quantities(&settlement.usage).ok_or(StoreError::Overflow(settlement.request_id))?,
        amounts,
        cost,
        priced,
    })
}

fn quantities(usage: &Usage) -> Option<[i64; LineItem::COUNT]> {
    let mut quantities = [0; LineItem::COUNT];
    for (place, item) in quantities.iter_mut().zip(LineItem::ALL) {
        *place = i64::try_from(usage.get(item)).ok()?;
    }
    Some(quantities)
}

type Priced = ([i64; LineItem::COUNT], Option<i64>, bool);

/// Amounts per line item, their sum, and whether every line has a price.
fn priced(entry: &Entry) -> Result<Priced, StoreError> {
    let Entry { settlement, .. } = entry;
    let overflow = || StoreError::Overflow(settlement.request_id);
    let mut amounts = [0_i64; LineItem::COUNT];
    let (mut any_price, charges) = (false, &settlement.charges);
    for charge in charges {
        if let Some(amount) = charge.amount().map_err(|_| overflow())? {
            any_price = true;
            let place = amounts.get_mut(charge.line_item.index()).ok_or_else(overflow)?;
            *place = place.checked_add(amount.pico()).ok_or_else(overflow)?;
        }
    }
    let cost = entry.cost().map_err(|_| overflow())?;
    let has_charge = |item| charges.iter().any(|charge| charge.line_item == item);
    let priced = cost.priced && settlement.usage.items().all(|(item, _)| has_charge(item));
    let cost = (any_price || priced).then_some(cost.amount.pico());
    Ok((amounts, cost, priced))
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
    let overflow = || StoreError::Overflow(settlement.request_id);
    let millis = |time: UnixNanos| i64::try_from(time.millis()).map_err(|_| overflow());
    let prices_from = admission.prices_from.map(|from| i64::try_from(from.seconds()).map_err(|_| overflow()));
    let query = query
        .bind(settlement.request_id.to_bytes().to_vec())
        .bind(row.api_key)
        .bind(row.endpoint)
        .bind(row.model)
        .bind(row.requested_model)
        .bind(row.service_tier)
        .bind(row.outcome)
        .bind(row.basis)
        .bind(i64::from(settlement.status))
        .bind(i64::from(admission.stream))
        .bind(millis(admission.admitted_at)?)
        .bind(millis(settlement.settled_at)?)
        .bind(prices_from.transpose()?);
    let query = row.quantities.iter().fold(query, |query, quantity| query.bind(*quantity));
    Ok(query.bind(row.cost).bind(i64::from(row.priced)))
}
