//! How long reports take over a large ledger that is being written to, and how large it is.
//!
//! `scripts/bench-ledger` builds the one of 10,000,000 requests; `cargo bench --bench ledger` a small one. Requests are
//! spread evenly over 90 days, 1,000 keys of 100 projects and 20 models: the worst case, since no two of a minute share a sum.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tollgate::{
    config::{Settings, load_catalog},
    domain::{
        catalog::Catalog,
        ids::{KeyId, RequestId},
        ledger::{Admission, Entry, Hold, Outcome, Settlement, Used},
        limits::{Audio, ByScope, Limits},
        money::Money,
        pricing::{Charge, ServiceTier},
        report::Kind,
        time::UnixNanos,
        usage::{Basis, LineItem, Usage},
    },
    journal::Position,
    openai::report,
    store::{self, Store, ledger::LedgerBatch},
};

const KEYS: u64 = 1_000;
const PROJECTS: u64 = 100;
const MODELS: u64 = 20;
const DAYS: u64 = 90;
const DAY_S: u64 = 86_400;
const END_S: u64 = 1_795_737_600;
const START_S: u64 = END_S - DAYS * DAY_S;
const BATCH: u64 = 1_000;
const RECORDED_PER_SECOND: u64 = 1_000;

/// What is asked, over and over. Times are of the ledger's own 90 days.
fn queries() -> Vec<(Kind, String)> {
    let last = |days: u64| END_S - days * DAY_S;
    let usage = |query: String| (Kind::Completions, query);
    let costs = |query: String| (Kind::Costs, query);
    vec![
        usage(format!("start_time={}&limit=31", last(30))),
        usage(format!("start_time={}&limit=31&group_by=model", last(30))),
        usage(format!("start_time={}&limit=31&group_by=project_id", last(30))),
        usage(format!("start_time={}&limit=7&group_by=project_id,model", last(6))),
        usage(format!("start_time={}&limit=7&group_by=api_key_id", last(6))),
        usage(format!("start_time={}&limit=31&group_by=model&api_key_ids=key_000007", last(30))),
        usage(format!("start_time={}&limit=31&models=model-3&group_by=project_id", last(30))),
        usage(format!("start_time={}&limit=31&project_ids=proj_000042&group_by=api_key_id,model", last(30))),
        usage(format!("start_time={}&bucket_width=1h&limit=168", last(7))),
        usage(format!("start_time={}&bucket_width=1h&limit=168&group_by=model", last(7))),
        usage(format!("start_time={}&bucket_width=1h&limit=24&group_by=project_id", last(1))),
        usage(format!("start_time={}&bucket_width=1m&limit=1440", last(1))),
        usage(format!("start_time={}&bucket_width=1m&limit=60&group_by=model", END_S - 3_600)),
        usage(format!("start_time={}&bucket_width=1m&limit=1440&project_ids=proj_000042", last(40))),
        usage(format!("start_time={}&limit=31&group_by=batch,service_tier", last(75))),
        usage(format!("start_time={}&end_time={}&limit=31", last(75) + 1_234, last(45) + 4_321)),
        usage(format!("start_time={}&limit=31&timezone=Europe/Berlin", last(30))),
        usage(format!("start_time={}&limit=31&timezone=Asia/Kolkata&group_by=model", last(30))),
        costs(format!("start_time={}&limit=90&timezone=America/New_York&group_by=line_item", last(89))),
        costs(format!("start_time={}&limit=180", last(90))),
        costs(format!("start_time={}&limit=31", last(30))),
        costs(format!("start_time={}&limit=31&group_by=line_item", last(30))),
        costs(format!("start_time={}&limit=31&group_by=project_id", last(30))),
        costs(format!("start_time={}&limit=7&group_by=project_id,line_item", last(6))),
        costs(format!("start_time={}&limit=7&group_by=api_key_id", last(6))),
        costs(format!("start_time={}&limit=180&project_ids=proj_000042&group_by=line_item", last(90))),
        costs(format!("start_time={}&limit=31&api_key_ids=key_000007&group_by=line_item", last(30))),
    ]
}

/// The `number`th request of `total`.
fn entry(number: u64, total: u64) -> Entry {
    // Fixed and mixed, so that the ledger is the same each time.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let pick = |shift: u32, of: u64| (mixed >> shift) % of;
    let admitted_ms = START_S * 1_000 + number * (DAYS * DAY_S * 1_000 / total);
    let model: Arc<str> = format!("model-{}", pick(40, MODELS)).into();
    let usage = Usage::default()
        .with(LineItem::InputText, 20 + pick(8, 3_000))
        .with(LineItem::InputCachedText, if pick(3, 4) == 0 { 1_024 } else { 0 })
        .with(LineItem::OutputText, 5 + pick(20, 800))
        .with(LineItem::OutputAudio, if pick(5, 4) == 0 { 20 + pick(12, 400) } else { 0 });
    let price = |item: LineItem| Some(Money::from_pico(150_000 * (1 + i64::from(item.is_input()))));
    let charges = |usage: &Usage| -> Vec<Charge> {
        usage.items().map(|(line_item, quantity)| Charge { line_item, quantity, price: price(line_item) }).collect()
    };
    let request_id = RequestId::new(admitted_ms, u128::from(mixed));
    let tokens = u32::try_from(usage.total()).unwrap_or(u32::MAX);
    let admission = Admission {
        request_id,
        admitted_at: UnixNanos(admitted_ms * 1_000_000),
        key_id: KeyId::parse(&format!("key_{:06}", pick(24, KEYS))).unwrap(),
        endpoint: "chat.completions".into(),
        model: Arc::clone(&model),
        stream: pick(6, 2) == 0,
        estimate: usage,
        charges: charges(&usage),
        service_tier: ServiceTier::Default,
        billed_model: Arc::clone(&model),
        prices_from: Some(UnixNanos::from_seconds(1_700_000_000)),
        hold: Hold {
            project_id: None,
            limit_group: model,
            limits: ByScope {
                project: Limits { requests_per_minute: 500.try_into().ok(), ..Limits::default() },
                key: Limits::default(),
            },
            tokens: tokens.try_into().unwrap(),
            audio: Audio::NONE,
            used_before: ByScope {
                project: [Some(pick(30, 400)), None, Some(pick(31, 90_000)), None, None, None, None, None],
                key: tollgate::domain::ledger::UsedBefore::default(),
            },
        },
    };
    let settlement = Settlement {
        request_id,
        settled_at: UnixNanos((admitted_ms + 300 + pick(10, 5_000)) * 1_000_000),
        outcome: Outcome::Completed,
        basis: Basis::Reported,
        status: 200,
        billed_model: Arc::clone(&admission.billed_model),
        service_tier: if pick(50, 50) == 0 { ServiceTier::Flex } else { ServiceTier::Default },
        prices_from: admission.prices_from,
        usage,
        charges: charges(&usage),
        used: Used::of(true, &usage),
    };
    Entry { admission, settlement }
}

async fn add_keys(path: &Path) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    for number in 0..KEYS {
        let (key, project) = (format!("key_{number:06}"), format!("proj_{:06}", number % PROJECTS));
        let account = format!("sa_{:06}", number % PROJECTS);
        for sql in [
            "INSERT OR IGNORE INTO projects (id, name, tier, created_at) VALUES (?2, ?2, 'tier5', 0)",
            "INSERT OR IGNORE INTO service_accounts (id, project_id, name, created_at) VALUES (?3, ?2, ?3, 0)",
            "INSERT INTO api_keys (id, project_id, service_account_id, name, hash, redacted_value, limits, created_at)
             VALUES (?1, ?2, ?3, ?1, zeroblob(32), '', '{}', 0)",
        ] {
            sqlx::query(sql).bind(&key).bind(&project).bind(&account).execute(&mut *transaction).await.unwrap();
        }
    }
    transaction.commit().await.unwrap();
}

/// Where the journal would be after the `number`th batch.
fn position(number: u64) -> Option<Position> {
    (number > 0).then_some(Position { segment: 1, offset: number })
}

async fn append(store: &Store, batch: u64, entries: Vec<Entry>) {
    let up_to = position(batch + 1).unwrap_or_default();
    store.append(&LedgerBatch { entries, from: position(batch), up_to, ..LedgerBatch::default() }).await.unwrap();
}

async fn build(store: &Store, total: u64) -> Duration {
    let started = Instant::now();
    for batch in 0..total / BATCH {
        let entries = (batch * BATCH..(batch + 1) * BATCH).map(|number| entry(number, total)).collect();
        append(store, batch, entries).await;
        if batch > 0 && batch % 1_000 == 0 {
            eprintln!("  {} of {total} requests, {:.0?}", batch * BATCH, started.elapsed());
        }
    }
    started.elapsed()
}

/// As the projector does: what came within 100 ms together.
async fn record(store: Store, total: u64) {
    const BATCHES_PER_SECOND: u64 = 10;
    let first_batch = store.projection().await.unwrap().unwrap().offset;
    let mut every = tokio::time::interval(Duration::from_millis(1_000 / BATCHES_PER_SECOND));
    for batch in first_batch.. {
        every.tick().await;
        let at = |number: u64| {
            let mut entry = entry(total + batch * (RECORDED_PER_SECOND / BATCHES_PER_SECOND) + number, total);
            let now_ms = END_S * 1_000 + batch * 100 + number;
            entry.admission.request_id = RequestId::new(now_ms, u128::from(now_ms));
            entry.settlement.request_id = entry.admission.request_id;
            entry.admission.admitted_at = UnixNanos(now_ms * 1_000_000);
            entry.settlement.settled_at = entry.admission.admitted_at;
            entry
        };
        append(&store, batch, (0..RECORDED_PER_SECOND / BATCHES_PER_SECOND).map(at).collect()).await;
    }
}

async fn answer(store: &Store, catalog: &Catalog, kind: Kind, query: &str) -> usize {
    let now = UnixNanos::from_seconds(END_S + 60);
    let (report, page) = report::read(kind, query, now).unwrap();
    let rows = match report.selection(&page, catalog) {
        Some(selection) => store::reports::rows(store, &selection).await.unwrap(),
        None => Vec::new(),
    };
    let buckets = report.fold(&page, rows).unwrap();
    report::print(&report, &page, &buckets).unwrap().len()
}

/// In milliseconds, with one decimal.
fn millis(time: Duration) -> String {
    let tenths = time.as_micros() / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

async fn measure(store: &Store, catalog: &Catalog, rounds: usize, only: &str) {
    let mut all = Vec::new();
    println!("| report | median, ms | slowest, ms | answer, KiB |\n|---|---:|---:|---:|");
    for (kind, query) in queries().into_iter().filter(|(kind, query)| format!("{kind:?} {query}").contains(only)) {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..rounds {
            let started = Instant::now();
            bytes = answer(store, catalog, kind, &query).await;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        all.extend_from_slice(&times);
        let query = query.split_once('&').map_or("", |(_, rest)| rest);
        let (median, slowest) = (millis(times[times.len() / 2]), millis(times[times.len() - 1]));
        println!("| {kind:?} {query} | {median} | {slowest} | {} |", bytes >> 10);
    }
    all.sort_unstable();
    let at = |percent: usize| millis(all[(all.len() * percent / 100).min(all.len() - 1)]);
    println!("\nall: median {} ms, p99 {} ms, of {} answers", at(50), at(99), all.len());
}

/// Where the bytes are.
async fn print_sizes(path: &Path, total: u64) {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
    let bytes = std::fs::metadata(path).unwrap().len();
    println!("{} bytes for each of {total} requests (so many MB per million)", bytes / total);
    let sql = "SELECT detail, width_s, sum(length(cells)), count(*) FROM rollups GROUP BY detail, width_s";
    let widths: Vec<(i64, i64, i64, i64)> = sqlx::query_as(sql).fetch_all(&mut connection).await.unwrap();
    for (detail, width_s, bytes, parts) in widths {
        println!("  sums of detail {detail} per {width_s} s: {} MiB in {parts} parts", bytes >> 20);
    }
    let tariffs: i64 = sqlx::query_scalar("SELECT count(*) FROM tariffs").fetch_one(&mut connection).await.unwrap();
    println!("  {tariffs} tariffs\n");
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let total: u64 =
        arguments.next().map_or(100_000, |text| text.replace('_', "").parse().expect("a number of requests"));
    let kept = arguments.next();
    let only = arguments.next().unwrap_or_default();
    let directory = kept.clone().map_or_else(|| tempfile::tempdir().unwrap().keep(), Into::into);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let path = directory.join("ledger.db");
        let is_new = !path.exists();
        let store = Store::open(&path).await.unwrap();
        if is_new {
            add_keys(&path).await;
            let took = build(&store, total).await;
            store.checkpoint().await.unwrap();
            println!("{total} requests of {DAYS} days, {KEYS} keys and {MODELS} models: built in {took:.0?}");
        }
        print_sizes(&path, total).await;
        let catalog = load_catalog(&Settings::default()).unwrap();
        let recording = tokio::spawn(record(store.clone(), total));
        measure(&store, &catalog, 20, &only).await;
        recording.abort();
    });
    if kept.is_none() {
        std::fs::remove_dir_all(directory).unwrap();
    }
}
