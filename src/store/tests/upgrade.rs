//! A ledger of version 3 held amounts per minute, not per entry: those that its kept database has no example of.

use std::fmt::Write as _;

use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use super::{super::Store, assert_balanced, everything};
use crate::{
    domain::{
        report::{Row, Width},
        usage::LineItem,
    },
    store::reports,
};

const MINUTE_S: i64 = 1_795_725_900;
const WIDTHS: [i64; 3] = [60, 3_600, 86_400];

fn version_3() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ledger_v3.sql")).unwrap()
}

/// A request of text, with what a token cost; `None` without a price.
struct Before {
    /// By its number among the names.
    model: i64,
    input: (i64, Option<i64>),
    output: (i64, Option<i64>),
}

impl Before {
    fn amounts(&self) -> [i64; 2] {
        [self.input, self.output].map(|(tokens, price)| tokens * price.unwrap_or(0))
    }

    fn is_priced(&self) -> bool {
        self.input.1.is_some() && self.output.1.is_some()
    }

    fn cost(&self) -> Option<i64> {
        (self.input.1.is_some() || self.output.1.is_some()).then(|| self.amounts().iter().sum())
    }
}

const REQUESTS: [Before; 7] = [
    // With a price, and without.
    Before { model: 20, input: (100, Some(150_000)), output: (7, Some(600_000)) },
    Before { model: 20, input: (51, None), output: (3, None) },
    // Of a short and of a long context: no price for a token comes out even.
    Before { model: 3, input: (1_001, Some(400_000)), output: (10, Some(1_600_000)) },
    Before { model: 3, input: (300_007, Some(800_001)), output: (11, Some(2_400_003)) },
    // One side only, all, nothing.
    Before { model: 16, input: (10, Some(2_500_000)), output: (5, None) },
    Before { model: 16, input: (3, Some(2_500_000)), output: (2, Some(10_000_000)) },
    Before { model: 16, input: (9, None), output: (1, None) },
];

/// The requests and their sums, as version 3 wrote them.
fn rows() -> String {
    let mut sql = String::new();
    for (number, request) in REQUESTS.iter().enumerate() {
        let Before { model, input: (input, _), output: (output, _) } = request;
        let cost = request.cost().map_or("NULL".to_owned(), |cost| cost.to_string());
        let prices_from = request.cost().map_or("NULL", |_| "1721260800");
        let (at_ms, priced) = (MINUTE_S * 1_000, u8::from(request.is_priced()));
        write!(
sql,
            "INSERT INTO entries VALUES (X'{number:032X}',1,1,{model},{model},4,5,6,200,0,{at_ms},{at_ms},{prices_from},\
             {input},0,0,0,0,0,0,{output},0,0,{cost},{priced});"
        ).unwrap();
        let [input_pico, output_pico] = request.amounts();
        for width in WIDTHS {
            write!(
                sql,
                "INSERT INTO rollups VALUES ({width},{},1,1,{model},4,1,{},{input},0,0,0,0,0,0,{output},0,0,\
                 {input_pico},0,0,0,0,0,0,{output_pico},0,0) ON CONFLICT DO UPDATE SET requests = requests + 1,
                     unpriced_requests = unpriced_requests + excluded.unpriced_requests,
                     input_text = input_text + excluded.input_text, output_text = output_text + excluded.output_text,
                     input_text_pico = input_text_pico + excluded.input_text_pico,
                     output_text_pico = output_text_pico + excluded.output_text_pico;",
                MINUTE_S / width * width,
                1 - priced
            )
            .unwrap();
        }
    }
    sql
}

/// Requests, those without a price, tokens in and out, pico-dollars.
type Sums = [i128; 5];

fn sums<'r>(rows: impl Iterator<Item = &'r Row>) -> Sums {
    let mut sums = [0; 5];
    for row in rows {
        sums[0] += i128::from(row.requests);
        sums[1] += i128::from(row.unpriced_requests);
        for line in &row.lines {
            sums[2] += i128::from(line.quantity) * i128::from(line.line_item == LineItem::InputText);
            sums[3] += i128::from(line.quantity) * i128::from(line.line_item == LineItem::OutputText);
            sums[4] += line.amount.pico();
        }
    }
    sums
}

#[tokio::test]
async fn minutes_of_several_prices_keep_their_sums_to_the_last_digit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tollgate.db");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true).foreign_keys(false);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let sql = version_3() + &rows();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    let cost_of = "SELECT lower(hex(request_id)), cost_pico, priced FROM entries ORDER BY request_id";
    let before: Vec<(String, Option<i64>, bool)> = sqlx::query_as(cost_of).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let store = Store::open(&path).await.unwrap();
    let cost_of = "SELECT substr(request_id, 5), cost_pico, priced FROM ledger ORDER BY request_id";
    let after: Vec<(String, Option<i64>, bool)> = sqlx::query_as(cost_of).fetch_all(store.reader()).await.unwrap();
    assert_eq!(after, before);
    assert_balanced(&store).await;
    for width in [Width::Minute, Width::Hour, Width::Day] {
        let mut selection = everything(width);
        selection.by_model = true;
        let rows = reports::rows(&store, &selection).await.unwrap();
        for (model, name) in [(20, "gpt-4o-mini"), (3, "gpt-4.1-mini"), (16, "gpt-4o")] {
            let found = sums(rows.iter().filter(|row| row.model.as_deref() == Some(name)));
            let mut expected = [0; 5];
            for request in REQUESTS.iter().filter(|request| request.model == model) {
                let unpriced = i64::from(!request.is_priced());
                let one = [1, unpriced, request.input.0, request.output.0, request.cost().unwrap_or(0)];
                expected.iter_mut().zip(one).for_each(|(sum, one)| *sum += i128::from(one));
            }
            assert_eq!(found, expected, "{name} {width:?}");
        }
    }
}
