//! Tariffs as rows: written when a batch needs a new one, read by reports.

use serde_json::{Map, Value};
use sqlx::{Sqlite, SqliteConnection, query::QueryScalar, sqlite::SqliteArguments};

use super::{Store, StoreError};
use crate::domain::{
    money::Money,
    pricing::{Rates, ServiceTier},
    tariff::{Tariff, TariffKind},
    time::UnixNanos,
    usage::LineItem,
};

pub(super) const INSERT: &str =
    "INSERT INTO tariffs (endpoint, model, service_tier, prices_from_s, priced, adjusts, prices)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING number";
pub(super) const SELECT: &str = "SELECT number FROM tariffs WHERE endpoint = ?1 AND model = ?2 AND service_tier = ?3
     AND prices_from_s = ?4 AND priced = ?5 AND adjusts = ?6 AND prices = ?7";

/// Of one price list, the newest first.
const FAMILY: &str = "SELECT number, prices FROM tariffs WHERE endpoint = ? AND model = ? AND service_tier = ?
     AND prices_from_s = ? AND priced = 1 AND adjusts = 0 ORDER BY number DESC";

/// No price began before 1970, so this stands for none: `UNIQUE` takes no two `NULL`s for the same.
const NO_PRICES: i64 = -1;

/// A tariff's words by their numbers.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) endpoint: i64,
    pub(super) model: i64,
    pub(super) service_tier: i64,
}

/// How a tariff is kept.
pub(super) enum Kept {
    /// By one that is there and has at least its prices.
    There(i64),
    ToBeAdded(Box<Tariff>),
}

/// Requests of one price list use different line items of it. They share a tariff that has the prices of all that were
/// used so far, since few tariffs make few sums: an amount is a product, and prices of what was not used change none.
pub(super) async fn kept(connection: &mut SqliteConnection, tariff: &Tariff, row: Row) -> Result<Kept, StoreError> {
    let mut added = Box::new(tariff.clone());
    if tariff.kind == TariffKind::Adjustment || !tariff.priced {
        return Ok(Kept::ToBeAdded(added));
    }
    let family: Vec<(i64, String)> = sqlx::query_as(FAMILY)
        .bind(row.endpoint)
        .bind(row.model)
        .bind(row.service_tier)
        .bind(from_s(tariff))
        .fetch_all(connection)
        .await?;
    for (number, text) in family {
        let rates = read_prices(&text).ok_or(StoreError::Unreadable(text))?;
        if rates.covers(&tariff.rates) {
            return Ok(Kept::There(number));
        }
        // The newest that fits has the most prices. A long context has others: those do not fit.
        if added.rates == tariff.rates {
            added.rates = rates.merged(&tariff.rates).unwrap_or(tariff.rates);
        }
    }
    Ok(Kept::ToBeAdded(added))
}

type Scalar<'q> = QueryScalar<'q, Sqlite, i64, SqliteArguments>;

pub(super) fn bind<'q>(query: Scalar<'q>, tariff: &Tariff, row: Row) -> Scalar<'q> {
    query
        .bind(row.endpoint)
        .bind(row.model)
        .bind(row.service_tier)
        .bind(from_s(tariff))
        .bind(tariff.priced)
        .bind(tariff.kind == TariffKind::Adjustment)
        .bind(prices(&tariff.rates))
}

fn from_s(tariff: &Tariff) -> i64 {
    tariff.prices_from.and_then(|from| i64::try_from(from.seconds()).ok()).unwrap_or(NO_PRICES)
}

/// `{"input_text":150000}`, in the order of the line items.
fn prices(rates: &Rates) -> String {
    let priced = LineItem::ALL.into_iter().filter_map(|item| Some((item, rates.get(item)?)));
    let members: Vec<_> = priced.map(|(item, price)| format!("\"{}\":{}", item.name(), price.pico())).collect();
    format!("{{{}}}", members.join(","))
}

fn read_prices(text: &str) -> Option<Rates> {
    let mut rates = Rates::default();
    for (name, price) in serde_json::from_str::<Map<String, Value>>(text).ok()? {
        let item = LineItem::ALL.into_iter().find(|item| item.name() == name)?;
        rates.set(item, Money::from_pico(price.as_i64()?));
    }
    Some(rates)
}

/// Without its end: which of them.
const READ: &str = "SELECT t.number, e.name, m.name, s.name, t.prices_from_s, t.priced, t.adjusts, t.prices
     FROM tariffs t
     JOIN names e ON e.number = t.endpoint
     JOIN names m ON m.number = t.model
     JOIN names s ON s.number = t.service_tier";

pub(super) async fn by_number(connection: &mut SqliteConnection, number: i64) -> Result<Tariff, StoreError> {
    let sql = format!("{READ} WHERE t.number = ?");
    let row: Option<Found> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(number).fetch_optional(connection).await?;
    row.map_or_else(|| Err(StoreError::Unreadable(number.to_string())), |row| read(row).map(|(_, tariff)| tariff))
}

impl Store {
    /// All tariffs after the one of this number, with their numbers.
    pub(super) async fn tariffs_after(&self, number: i64) -> Result<Vec<(i64, Tariff)>, StoreError> {
        let sql = format!("{READ} WHERE t.number > ? ORDER BY t.number");
        let rows: Vec<Found> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(number).fetch_all(self.reader()).await?;
        rows.into_iter().map(read).collect()
    }
}

type Found = (i64, String, String, String, i64, bool, bool, String);

fn read(
    (number, endpoint, model, service_tier, from_s, priced, adjusts, text): Found,
) -> Result<(i64, Tariff), StoreError> {
    let Some(rates) = read_prices(&text) else { return Err(StoreError::Unreadable(text)) };
    let tariff = Tariff {
        endpoint: endpoint.into(),
        model: model.into(),
        service_tier: ServiceTier::from_wire(&service_tier),
        prices_from: u64::try_from(from_s).ok().map(UnixNanos::from_seconds),
        rates,
        priced,
        kind: if adjusts { TariffKind::Adjustment } else { TariffKind::Request },
    };
    Ok((number, tariff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_written_in_one_way_and_read_back() {
        let mut rates = Rates::default();
        rates.set(LineItem::OutputAudio, Money::from_pico(20_000_000));
        rates.set(LineItem::InputText, Money::from_pico(-5));
        assert_eq!(prices(&rates), r#"{"input_text":-5,"output_audio":20000000}"#);
        assert_eq!(read_prices(&prices(&rates)), Some(rates));
        assert_eq!(prices(&Rates::default()), "{}");
        assert_eq!(read_prices(r#"{"lunch":5}"#), None);
        assert_eq!(read_prices(r#"{"input_text":0.5}"#), None);
    }
}
