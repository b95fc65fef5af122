//! The ledger against what the upstream wrote down about itself, and against its own sums.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt, fs,
    path::Path,
    time::{Duration, Instant},
};

use serde::Deserialize;
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tollgate::domain::{rollup::Cells, usage::LineItem};

use crate::{
    load::{Tally, Team},
    process::log_of,
};

/// A request as the look-alike wrote it down before it answered.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen {
    pub request_id: String,
    pub model: String,
    pub status: Option<u16>,
    pub usage: Option<SeenUsage>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are the log's")]
pub struct SeenUsage {
    cached_tokens: i64,
    prompt_text_tokens: i64,
    prompt_audio_tokens: i64,
    completion_text_tokens: i64,
    completion_audio_tokens: i64,
    reasoning_tokens: i64,
}

/// A row of the ledger's view for people.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    pub request_id: String,
    pub api_key_id: String,
    pub requested_model: String,
    pub outcome: String,
    pub basis: String,
    input_text: i64,
    input_cached_text: i64,
    pub input_audio: i64,
    output_text: i64,
    pub output_audio: i64,
    pub cost_pico: Option<i64>,
    priced: i64,
}

impl Row {
    const fn tokens(&self) -> [i64; 5] {
        [self.input_text, self.input_cached_text, self.input_audio, self.output_text, self.output_audio]
    }

    pub const fn input_tokens(&self) -> i64 {
        self.input_text + self.input_cached_text + self.input_audio
    }

    pub const fn output_tokens(&self) -> i64 {
        self.output_text + self.output_audio
    }

    fn consumed_nothing(&self) -> bool {
        self.tokens() == [0; 5]
    }
}

impl SeenUsage {
    const fn tokens(&self) -> [i64; 5] {
        [
            self.prompt_text_tokens - self.cached_tokens,
            self.cached_tokens,
            self.prompt_audio_tokens,
            self.completion_text_tokens + self.reasoning_tokens,
            self.completion_audio_tokens,
        ]
    }
}

/// Pico-dollars for a token of each kind, in the order of [`Row::tokens`]. Written down here once more, from the price
/// list and not from the catalog: a cost is only proven by somebody else's calculation.
const PRICES: [(&str, [i64; 5]); 8] = [
    ("gpt-4o-mini", [150_000, 75_000, 0, 600_000, 0]),
    ("gpt-4o", [2_500_000, 1_250_000, 0, 10_000_000, 0]),
    ("gpt-4.1-mini", [400_000, 100_000, 0, 1_600_000, 0]),
    ("gpt-4.1-nano", [100_000, 25_000, 0, 400_000, 0]),
    ("gpt-4o-mini-audio-preview", [150_000, 0, 10_000_000, 600_000, 20_000_000]),
    ("gpt-audio", [2_500_000, 0, 32_000_000, 10_000_000, 64_000_000]),
    ("gpt-audio-1.5", [2_500_000, 0, 32_000_000, 10_000_000, 64_000_000]),
    ("gpt-audio-mini", [600_000, 0, 10_000_000, 2_400_000, 20_000_000]),
];

fn cost_pico(row: &Row) -> i64 {
    let prices = PRICES.iter().find(|(model, _)| *model == row.requested_model).unwrap().1;
    row.tokens().iter().zip(prices).map(|(tokens, price)| tokens * price).sum()
}

pub fn read_log(path: &Path) -> Vec<Seen> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until the look-alike in `dir` has written down so many requests.
pub async fn until_seen(dir: &tempfile::TempDir, requests: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while read_log(&log_of(dir.path())).len() < requests {
        assert!(Instant::now() < deadline, "the upstream was not called");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The ledger's database, beside the gateway that writes it.
pub struct Ledger(SqlitePool);

impl Ledger {
    pub async fn open(path: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        Self(SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap())
    }

    /// A copy of the database of a gateway that is at rest, for a file system that is not this process's.
    pub async fn open_copy(path: &Path, dir: &Path) -> Self {
        for end in ["", "-wal"] {
            let name = format!("{}{end}", path.file_name().unwrap().to_str().unwrap());
            fs::copy(path.with_file_name(&name), dir.join(&name)).unwrap();
        }
        let options = SqliteConnectOptions::new().filename(dir.join(path.file_name().unwrap()));
        Self(SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap())
    }

    pub async fn rows(&self) -> Vec<Row> {
        sqlx::query_as("SELECT * FROM ledger").fetch_all(&self.0).await.unwrap()
    }

    pub async fn count(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM entries").fetch_one(&self.0).await.unwrap()
    }

    /// SQLite finds the file in order.
    pub async fn assert_intact(&self) {
        let check: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&self.0).await.unwrap();
        assert_eq!(check, "ok");
    }

    /// Every sum is the sum of its rows, for each width, and SQLite finds the file in order.
    pub async fn assert_sound(&self) {
        self.assert_intact().await;
        let references = sqlx::query("PRAGMA foreign_key_check").fetch_all(&self.0).await.unwrap();
        assert!(references.is_empty(), "rows that refer to nothing: {}", references.len());
        let rows = self.sums_of_rows().await;
        for (width_s, sums) in self.sums_of_rollups().await {
            let mut of_rows = Sums::new();
            for ((settled_s, api_key, tariff), row) in &rows {
                add(&mut of_rows, (settled_s / width_s * width_s, *api_key, *tariff), row);
            }
            assert!(sums == of_rows, "sums of {width_s} s that are not those of their rows");
        }
    }

    async fn sums_of_rows(&self) -> Sums {
        let items: String = LineItem::ALL.map(|item| format!(", sum({})", item.name())).concat();
        let sql = format!(
            "SELECT json_array((admitted_at_ms + duration_ms) / 1000, api_key, tariff, count(*){items}) FROM entries
             GROUP BY (admitted_at_ms + duration_ms) / 1000, api_key, tariff"
        );
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&self.0).await.unwrap();
        let mut sums = Sums::new();
        for row in rows {
            let numbers: Vec<u64> = serde_json::from_str(&row).unwrap();
            add(&mut sums, (numbers[0], numbers[1], numbers[2]), &numbers[3..]);
        }
        sums
    }

    /// By width.
    async fn sums_of_rollups(&self) -> BTreeMap<u64, Sums> {
        let sql = "SELECT width_s, bucket_start_s, cells FROM rollups WHERE detail = 0";
        let parts: Vec<(i64, i64, Vec<u8>)> = sqlx::query_as(sql).fetch_all(&self.0).await.unwrap();
        let mut widths = BTreeMap::from([60, 3_600, 86_400].map(|width_s| (width_s, Sums::new())));
        for (width_s, start_s, cells) in parts {
            let sums = widths.get_mut(&width_s.cast_unsigned()).unwrap();
            for cell in Cells::of(&cells).unwrap().map(Result::unwrap) {
                let quantities = LineItem::ALL.map(|item| cell.usage.get(item));
                let row: Vec<u64> = std::iter::once(cell.requests).chain(quantities).collect();
                add(sums, (start_s.cast_unsigned(), cell.api_key.into(), cell.tariff.into()), &row);
            }
        }
        widths
    }
}

/// Requests and quantities by time, key and tariff.
type Sums = BTreeMap<(u64, u64, u64), Vec<u64>>;

fn add(sums: &mut Sums, group: (u64, u64, u64), row: &[u64]) {
    let sum = sums.entry(group).or_insert_with(|| vec![0; row.len()]);
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
}

/// What the comparison of the upstream's log with the ledger came to.
#[derive(Debug, Default)]
pub struct Verdict {
    pub seen_by_upstream: usize,
    pub missing: usize,
    pub twice: usize,
    pub of_another_key: usize,
    pub wrong_tokens: usize,
    pub wrong_cost: usize,
    /// Rows without a request at the upstream that claim more than an interruption.
    pub invented: usize,
    /// Answers that clients had whole, and that the ledger does not hold as completed.
    pub finished_but_open: usize,
    pub interrupted: usize,
    pub reported: usize,
    pub estimated: usize,
    pub never_sent: usize,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seen by the upstream: {}, missing: {}, twice: {}, of another key: {}, wrong tokens: {}, wrong cost: {}, \
             invented: {}, finished but open: {}, interrupted: {}, reported: {}, estimated: {}, never sent: {}",
            self.seen_by_upstream,
            self.missing,
            self.twice,
            self.of_another_key,
            self.wrong_tokens,
            self.wrong_cost,
            self.invented,
            self.finished_but_open,
            self.interrupted,
            self.reported,
            self.estimated,
            self.never_sent
        )
    }
}

impl Verdict {
    pub fn of(log: &[Seen], rows: &[Row], teams: &[Team], tally: &Tally) -> Self {
        let mut verdict = Self { seen_by_upstream: log.len(), ..Self::default() };
        let seen: HashMap<&str, &Seen> = log.iter().map(|seen| (seen.request_id.as_str(), seen)).collect();
        // The ids that appear twice in the log were sent twice.
        verdict.twice = log.len() - seen.len();
        let mut booked = HashSet::new();
        for row in rows {
            if !booked.insert(row.request_id.as_str()) {
                verdict.twice += 1;
            }
            verdict.judge(row, seen.get(row.request_id.as_str()).copied(), teams);
            let asked_with = tally.finished.get(&row.request_id);
            verdict.of_another_key += usize::from(asked_with.is_some_and(|key| *key != row.api_key_id));
            let completed = row.outcome == "completed" && row.basis == "reported";
            verdict.finished_but_open += usize::from(asked_with.is_some() && !completed);
        }
        verdict.missing = seen.keys().filter(|id| !booked.contains(*id)).count();
        verdict.finished_but_open += tally.finished.keys().filter(|id| !booked.contains(id.as_str())).count();
        verdict
    }

    fn judge(&mut self, row: &Row, seen: Option<&Seen>, teams: &[Team]) {
        let model = &row.requested_model;
        let team = teams.iter().find(|team| team.text_model == model || team.audio_model == model).unwrap();
        self.of_another_key += usize::from(team.key.id != row.api_key_id);
        self.wrong_cost += usize::from(row.priced != 1 || row.cost_pico != Some(cost_pico(row)));
        self.interrupted += usize::from(row.outcome == "interrupted");
        let Some(seen) = seen else {
            self.never_sent += 1;
            self.invented += usize::from(row.outcome != "interrupted" && !row.consumed_nothing());
            return;
        };
        self.of_another_key += usize::from(seen.model != *model);
        let reported = seen.usage.filter(|_| seen.status == Some(200)).map(|usage| usage.tokens());
        if row.basis == "reported" {
            self.reported += 1;
            self.wrong_tokens += usize::from(reported != Some(row.tokens()));
        } else {
            self.estimated += 1;
            // A request that consumed something is never estimated at nothing.
            self.wrong_tokens += usize::from(row.outcome == "completed" || row.consumed_nothing());
        }
    }

    pub fn assert_good(&self) {
        let wrong = [
            self.missing,
            self.twice,
            self.of_another_key,
            self.wrong_tokens,
            self.wrong_cost,
            self.invented,
            self.finished_but_open,
        ];
        assert_eq!(wrong, [0; 7], "{self}");
    }
}
