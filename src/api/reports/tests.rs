mod kinds;
#[path = "../../../tests/integration/schema.rs"]
mod schema;
mod zones;

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::{
    domain::{
        catalog::{Model, Snapshot},
        usage::LineItem::{self, InputAudio, InputCachedText, InputText, OutputAudio, OutputText},
    },
    store::reports::seed::{Settled, seed},
};

/// 2025-02-10 10:15:50 UTC, and the start that was asked for: the moment of the recordings.
const NOW_S: u64 = 1_739_182_550;
const START_S: u64 = 1_739_096_063;
const MIDNIGHT_S: u64 = 1_739_145_600;

const MINI_AUDIO: &str = "gpt-4o-mini-audio-preview-2024-12-17";

/// The recorded beep, and what it costs.
const BEEP: [(LineItem, i64, i64); 3] =
    [(InputText, 22, 3_300_000), (OutputText, 6, 3_600_000), (OutputAudio, 12, 240_000_000)];

struct World {
    store: Store,
    catalog: Catalog,
    path: PathBuf,
    _folder: TempDir,
}

impl World {
    async fn new(entries: &[Settled<'_>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let store = Store::open(&path).await.unwrap();
        seed(&path, entries).await;
        let snapshots = vec![Snapshot { id: MINI_AUDIO.into(), ..Snapshot::default() }];
        let model = Model { id: "gpt-4o-mini-audio-preview".into(), snapshots, ..Model::default() };
        let catalog = Catalog::new(vec![model], vec![]).unwrap();
        Self { store, catalog, path, _folder: folder }
    }

    async fn usage(&self, query: &str) -> String {
        self.usage_at(NOW_S, query).await
    }

    async fn usage_at(&self, now_s: u64, query: &str) -> String {
        self.page(Kind::Completions, now_s, query).await
    }

    async fn costs(&self, query: &str) -> String {
        self.page(Kind::Costs, NOW_S, query).await
    }

    async fn page(&self, kind: Kind, now_s: u64, query: &str) -> String {
        let now = UnixNanos::from_seconds(now_s);
        String::from_utf8(page(kind, &self.store, &self.catalog, query, now).await.unwrap()).unwrap()
    }
}

/// Two teams: one with audio, one with cached and with batch text; and an embedding, which is no completion.
async fn two_teams() -> World {
    let cached = [(InputText, 100, 15_000_000), (InputCachedText, 1_024, 76_800_000), (OutputText, 7, 4_200_000)];
    let audio_in = [(InputText, 1, 150_000), (InputAudio, 17, 170_000_000), (OutputText, 3, 1_800_000)];
    let embedding = [(InputText, 8, 160_000)];
    let beep = Settled { at_s: NOW_S, model: MINI_AUDIO, lines: &BEEP, ..Settled::default() };
    let other =
        Settled { project_id: "proj_b", api_key_id: "key_b", model: "gpt-4o-mini-2024-07-18", lines: &cached, ..beep };
    World::new(&[
        beep,
        Settled { at_s: MIDNIGHT_S, lines: &audio_in, ..beep },
        Settled { at_s: MIDNIGHT_S + 3_600, service_tier: "batch", ..other },
        Settled { at_s: MIDNIGHT_S - 1, ..other },
        Settled {
            at_s: MIDNIGHT_S + 60,
            model: "text-embedding-3-small",
            endpoint: "embeddings",
            lines: &embedding,
            ..beep
        },
    ])
    .await
}

/// As text: parsed numbers would be floats.
fn assert_golden(name: &str, body: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reports").join(name);
    let golden = std::fs::read_to_string(path).unwrap();
    let compact: String = golden.lines().map(|line| line.trim().replacen("\": ", "\":", 1)).collect();
    assert_eq!(body, compact, "{name}");
}

fn parsed(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

fn buckets(body: &str) -> Vec<Value> {
    parsed(body)["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn usage_and_costs_are_printed_as_in_the_golden_files() {
    let world = two_teams().await;
    let start = format!("start_time={START_S}");
    assert_golden("usage.json", &world.usage(&start).await);
    let grouped = format!("{start}&group_by=project_id,user_id,api_key_id,model,batch,service_tier");
    assert_golden("usage_grouped.json", &world.usage(&grouped).await);
    assert_golden("usage_first_page.json", &world.usage(&format!("{start}&bucket_width=1h&limit=2")).await);
    assert_golden("costs.json", &world.costs(&start).await);
    let grouped = format!("{start}&group_by[]=line_item&group_by[]=project_id");
    assert_golden("costs_by_line_item.json", &world.costs(&grouped).await);
}

#[tokio::test]
async fn pages_joined_are_the_whole_report_even_while_time_passes() {
    let world = two_teams().await;
    let query = format!("start_time={START_S}&bucket_width=1h&group_by[]=model");
    let whole = buckets(&world.usage(&format!("{query}&limit=168")).await);
    let (mut joined, mut page, mut now_s) = (Vec::new(), String::new(), NOW_S);
    loop {
        let body = world.usage_at(now_s, &format!("{query}&limit=5{page}")).await;
        joined.extend(buckets(&body));
        now_s += 4_000;
        match parsed(&body)["next_page"].as_str() {
            Some(next) => page = format!("&page={next}"),
            None => break,
        }
    }
    assert_eq!((joined.len(), joined), (25, whole));
}

#[tokio::test]
async fn what_was_settled_just_now_is_in_the_last_bucket() {
    for now_s in [NOW_S, MIDNIGHT_S, MIDNIGHT_S + 60, MIDNIGHT_S + 59] {
        let world = World::new(&[Settled { at_s: now_s, lines: &BEEP, ..Settled::default() }]).await;
        for width in ["1m", "1h", "1d"] {
            let query = format!("start_time={}&bucket_width={width}", now_s - 90);
            let last = buckets(&world.usage_at(now_s, &query).await).pop().unwrap();
            assert_eq!(last["results"][0]["num_model_requests"], 1, "{now_s} {width}");
        }
    }
}

#[tokio::test]
async fn filters_choose_models_batches_and_users() {
    let world = two_teams().await;
    for (filter, requests) in [
        ("models=gpt-4o-mini-audio-preview", 2),
        ("models[]=gpt-4o-mini-audio-preview-2024-12-17&models[]=gpt-4o-mini-2024-07-18", 4),
        ("models=gpt-4o-mini-2024-07-18&batch=false", 1),
        ("batch=true", 1),
        ("project_ids=proj_a", 2),
        ("project_ids=proj_a&api_key_ids=key_b", 0),
        ("user_ids=user-1", 0),
    ] {
        let buckets = buckets(&world.usage(&format!("start_time={START_S}&{filter}")).await);
        let results = buckets.iter().flat_map(|bucket| bucket["results"].as_array().unwrap());
        let found: u64 = results.map(|result| result["num_model_requests"].as_u64().unwrap()).sum();
        assert_eq!((found, buckets.len()), (requests, 2), "{filter}");
    }
}

#[tokio::test]
async fn a_broken_ledger_is_not_the_callers_fault_and_its_details_stay_inside() {
    let world = two_teams().await;
    let mut connection =
        sqlx::SqlitePool::connect(world.path.to_str().unwrap()).await.unwrap().acquire().await.unwrap();
    sqlx::query("DROP TABLE rollups").execute(&mut *connection).await.unwrap();
    let now = UnixNanos::from_seconds(NOW_S);
    let error = page(Kind::Costs, &world.store, &world.catalog, "start_time=5", now).await.unwrap_err();
    assert_eq!((error.status, error.code.as_deref()), (500, Some("report_failed")));
    assert!(!error.message.contains("rollups"));
}
