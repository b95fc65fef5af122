use std::num::{NonZeroU32, NonZeroU64};

use super::*;
use crate::domain::{
    audit::By,
    catalog::Catalog,
    ids::fixed_base62,
    keys::{AllowedModels, KeyHash},
    limits::Limits,
    spend::{Budget, Enforcement},
    standing::Standing,
};

const NOW: UnixNanos = UnixNanos::from_seconds(1_000);
static BY: By = By::gateway(NOW);

struct Fixture {
    directory: tempfile::TempDir,
    pepper: Pepper,
    accounts: Arc<Accounts>,
}

impl Fixture {
    async fn new() -> Self {
        let (directory, pepper) = (tempfile::tempdir().unwrap(), Pepper::from_bytes([7; 32]));
        let accounts = load(&directory, &pepper).await;
        Self { directory, pepper, accounts }
    }

    async fn restart(&mut self) {
        self.accounts = load(&self.directory, &self.pepper).await;
    }

    async fn project(&self, name: &str) -> Arc<Project> {
        self.accounts.create_project(name, TierId::from("tier1"), &BY).await.unwrap()
    }

    async fn key(&self, project: &Project) -> (Arc<ApiKey>, PlainKey) {
        let created = self.accounts.create_service_account(&project.id, "worker", KeyTerms::default(), &BY).await;
        let (_, key, plain) = created.unwrap();
        (key, plain)
    }
}

async fn load(directory: &tempfile::TempDir, pepper: &Pepper) -> Arc<Accounts> {
    let store = Store::open(&directory.path().join("tollgate.db")).await.unwrap();
    Accounts::load(Arc::new(store), pepper.clone()).await.unwrap()
}

#[tokio::test]
async fn a_key_works_from_the_next_request_on_for_its_own_project() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.project("a").await, fixture.project("b").await);
    let ((_, of_a), (_, of_b)) = (fixture.key(&a).await, fixture.key(&b).await);
    assert_eq!(fixture.accounts.authenticate(of_a.reveal(), NOW).unwrap().project().id, a.id);
    assert_eq!(fixture.accounts.authenticate(of_b.reveal(), NOW).unwrap().project().id, b.id);
}

#[tokio::test]
async fn a_revoked_key_is_refused_from_the_next_request() {
    let mut fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let (key, plain) = fixture.key(&project).await;
    let (_, other) = fixture.key(&project).await;
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW).is_ok());
    assert!(fixture.accounts.revoke_key(&project.id, &key.id, &BY).await.unwrap());
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW).is_err());
    assert!(fixture.accounts.authenticate(other.reveal(), NOW).is_ok());
    assert!(!fixture.accounts.revoke_key(&project.id, &key.id, &BY).await.unwrap(), "revoked already");
    fixture.restart().await;
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW).is_err());
    assert_eq!(fixture.accounts.key(&key.id).unwrap().revoked_at, Some(NOW));
}

#[tokio::test]
async fn keys_survive_a_restart() {
    let mut fixture = Fixture::new().await;
    let project = fixture.project("Ünïcode").await;
    let terms = KeyTerms {
        limits: Limits { requests_per_day: NonZeroU32::new(5), batch_queue_tokens: Some(9), ..Limits::default() },
        allowed_models: Some(AllowedModels::new(["gpt-4o".to_owned()])),
        budget: Some(Budget {
            monthly_cents: None,
            daily_cents: NonZeroU64::new(7),
            enforcement: Enforcement::Inactive,
        }),
        expires_at: Some(NOW.plus_nanos(9)),
    };
    let created = fixture.accounts.create_service_account(&project.id, "worker", terms.clone(), &BY);
    let (_, before, plain) = created.await.unwrap();
    fixture.restart().await;
    let caller = fixture.accounts.authenticate(plain.reveal(), NOW).unwrap();
    assert_eq!(caller.project(), &*project);
    let after = caller.key();
    assert_eq!((&after.id, &after.service_account), (&before.id, &before.service_account));
    assert_eq!((&after.name, &after.redacted_value), (&before.name, &before.redacted_value));
    assert_eq!((&after.terms, after.created_at), (&terms, NOW));
    assert_eq!(fixture.accounts.projects(), [project]);
}

#[tokio::test]
async fn an_expired_key_is_refused_to_the_nanosecond() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let end = NOW.plus_nanos(10);
    let created = fixture
        .accounts
        .create_service_account(&project.id, "a", KeyTerms { expires_at: Some(end), ..KeyTerms::default() }, &BY)
        .await;
    let (_, _, plain) = created.unwrap();
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW.plus_nanos(9)).is_ok());
    assert!(fixture.accounts.authenticate(plain.reveal(), end).is_err());
}

#[tokio::test]
async fn a_stolen_hash_is_no_key() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    fixture.key(&project).await;
    let rows: Vec<(String, Vec<u8>, String, String)> =
        sqlx::query_as("SELECT id, hash, redacted_value, lower(hex(hash)) FROM api_keys")
            .fetch_all(fixture.accounts.store.reader())
            .await
            .unwrap();
    let (id, hash, redacted, hex) = &rows[0];
    let public = id.strip_prefix("key_").unwrap();
    // With a checksum that is right, so that only the secret is wrong.
    let body = format!("sk-tg_{public}_{}", &hex[..32]);
    let forged = format!("{body}{}", fixed_base62(crc32fast::hash(body.as_bytes()), 6));
    assert!(PlainKey::parse(&forged).is_some_and(|(forged, _)| forged.as_str() == id));
    for stolen in [id, redacted, hex, &forged, &String::from_utf8_lossy(hash).into_owned()] {
        assert!(fixture.accounts.authenticate(stolen, NOW).is_err(), "{stolen}");
    }
}

#[tokio::test]
async fn the_database_and_debug_output_hold_no_secret() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let (key, plain) = fixture.key(&project).await;
    let secret = plain.reveal().rsplit_once('_').unwrap().1;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(fixture.accounts.store.writer()).await.unwrap();
    for file in std::fs::read_dir(fixture.directory.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(16).any(|window| window == &secret.as_bytes()[..16]));
    }
    assert!(!format!("{key:?}").contains(&secret[..16]));
}

#[tokio::test]
async fn a_database_under_another_pepper_opens_for_nobody() {
    let mut fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let (_, plain) = fixture.key(&project).await;
    fixture.pepper = Pepper::from_bytes([8; 32]);
    fixture.restart().await;
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW).is_err());
}

#[tokio::test]
async fn who_calls_is_told_without_the_database() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let (_, plain) = fixture.key(&project).await;
    fixture.accounts.store.reader().close().await;
    fixture.accounts.store.writer().close().await;
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW).is_ok());
    assert!(fixture.accounts.authenticate("sk-unknown", NOW).is_err());
}

#[tokio::test]
async fn no_credential_good_or_bad_uses_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let (store, uses) = Store::open_counted(&directory.path().join("tollgate.db")).await;
    let (store, pepper) = (Arc::new(store), Pepper::from_bytes([7; 32]));
    let (admin_keys, _) = AdminKeys::load(None, pepper.clone(), Arc::clone(&store), NOW).await.unwrap();
    let fixture = Fixture { directory, accounts: Accounts::load(store, pepper.clone()).await.unwrap(), pepper };
    let used = || uses.load(std::sync::atomic::Ordering::Relaxed);
    let before = used();
    let project = fixture.project("a").await;
    assert!(used() > before, "the count counts");
    let ((_, good), (gone, revoked)) = (fixture.key(&project).await, fixture.key(&project).await);
    fixture.accounts.revoke_key(&project.id, &gone.id, &BY).await.unwrap();
    let (_, unknown) = PlainKey::generate(&mut random);
    let wrong_secret = PlainKey::renew(&gone.id, &mut random);
    let before = used();
    let wrong_checksum = other_end(good.reveal());
    let known = [good.reveal(), revoked.reveal(), wrong_secret.reveal(), &wrong_checksum];
    for text in known.into_iter().chain([unknown.reveal(), "", "sk-tg_", "' OR 1=1--"]) {
        assert_eq!(fixture.accounts.authenticate(text, NOW).is_ok(), text == good.reveal());
        assert!(admin_keys.authenticate(text, NOW).is_none());
    }
    assert_eq!(used(), before);
}

/// `text` with another last character, which makes its checksum wrong.
fn other_end(text: &str) -> String {
    let (body, last) = text.split_at(text.len() - 1);
    format!("{body}{}", if last == "0" { "1" } else { "0" })
}

/// Texts of one length, refused in turns: what the machine does meanwhile happens to all of them.
#[tokio::test]
async fn every_refusal_takes_the_same_time() {
    const ROUNDS: usize = 401;
    const BATCH: usize = 25;
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    for _ in 0..50 {
        fixture.key(&project).await;
    }
    let ((known, plain), (gone, revoked)) = (fixture.key(&project).await, fixture.key(&project).await);
    fixture.accounts.revoke_key(&project.id, &gone.id, &BY).await.unwrap();
    let (_, unknown) = PlainKey::generate(&mut random);
    let texts = [
        ("an unknown id", unknown.reveal().to_owned()),
        ("a known id, another secret", PlainKey::renew(&known.id, &mut random).reveal().to_owned()),
        ("a revoked key", revoked.reveal().to_owned()),
        ("a key with another checksum", other_end(plain.reveal())),
        ("an unknown id with another checksum", other_end(unknown.reveal())),
        ("another prefix", plain.reveal().replace("sk-tg_", "sk-xx_")),
        ("no key at all", "x".repeat(plain.reveal().len())),
    ];
    let mut nanos = vec![Vec::with_capacity(ROUNDS); texts.len()];
    for _ in 0..ROUNDS {
        for (nanos, (_, text)) in nanos.iter_mut().zip(&texts) {
            let start = std::time::Instant::now();
            for _ in 0..BATCH {
                assert!(fixture.accounts.authenticate(std::hint::black_box(text), NOW).is_err());
            }
            nanos.push(start.elapsed().as_nanos());
        }
    }
    let median = |nanos: &mut Vec<u128>| *nanos.select_nth_unstable(ROUNDS / 2).1;
    let medians: Vec<_> = texts.iter().zip(&mut nanos).map(|((what, _), nanos)| (median(nanos), *what)).collect();
    let at_most = |percent, medians: &[(u128, &str)]| {
        let (fastest, slowest) = (medians.iter().min().unwrap(), medians.iter().max().unwrap());
        assert!(slowest.0 * 100 < fastest.0 * percent, "{fastest:?} and {slowest:?} in {medians:?} nanoseconds");
    };
    // Which ids there are, nobody can tell. What is wrong with a text alone, its sender knows: reading it may stop early.
    at_most(120, &medians[..3]);
    at_most(140, &medians);
}

#[tokio::test]
async fn a_change_that_could_not_be_saved_does_not_hold() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let (key, plain) = fixture.key(&project).await;
    fixture.accounts.store.writer().close().await;
    assert!(matches!(
        fixture.accounts.create_project("b", TierId::from("tier1"), &BY).await,
        Err(AccountsError::Store(_))
    ));
    assert!(fixture.accounts.revoke_key(&project.id, &key.id, &BY).await.is_err());
    assert_eq!(fixture.accounts.projects().len(), 1);
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW).is_ok());
}

#[tokio::test]
async fn a_promotion_that_an_administrator_was_faster_than_is_none() {
    let fixture = Fixture::new().await;
    let seen = fixture.project("a").await;
    let promoted = async || {
        let (accounts, tier) = (&fixture.accounts, TierId::from("tier2"));
        let promoted = accounts.promote_project(&seen, tier, &Standing::default(), &BY).await.unwrap();
        promoted.map(|project| project.tier.as_str().to_owned())
    };
    let moved = async |tier: &str, automatic_tier: bool| {
        let (tier, catalog) = (Some(TierId::from(tier)), Arc::new(Catalog::default()));
        let moved = fixture.accounts.modify_project(&seen.id, None, tier, Some(automatic_tier), &catalog, &BY).await;
        moved.unwrap();
    };
    moved("tier5", true).await;
    assert_eq!(promoted().await, None);
    moved("tier1", false).await;
    assert_eq!(promoted().await, None);
    moved("tier1", true).await;
    assert_eq!(promoted().await.as_deref(), Some("tier2"));
    assert_eq!(fixture.accounts.project(&seen.id).unwrap().tier.as_str(), "tier2");
}

#[tokio::test]
async fn a_revocation_whose_client_left_is_carried_out() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let (key, plain) = fixture.key(&project).await;
    {
        let revocation = fixture.accounts.revoke_key(&project.id, &key.id, &BY);
        let mut revocation = std::pin::pin!(revocation);
        // Polled once, then dropped, as axum drops a handler.
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(revocation.as_mut().poll(&mut context).is_pending());
    }
    tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while fixture.accounts.authenticate(plain.reveal(), NOW).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_the_same_time_are_all_kept() {
    let mut fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let changes = (0..20).map(|_| {
        let (accounts, id) = (Arc::clone(&fixture.accounts), project.id.clone());
        tokio::spawn(async move { accounts.create_service_account(&id, "a", KeyTerms::default(), &BY).await })
    });
    let mut plain = Vec::new();
    for change in changes.collect::<Vec<_>>() {
        plain.push(change.await.unwrap().unwrap().2);
    }
    for _ in 0..2 {
        assert_eq!(fixture.accounts.keys_of(&project.id).len(), 20);
        assert!(plain.iter().all(|plain| fixture.accounts.authenticate(plain.reveal(), NOW).is_ok()));
        fixture.restart().await;
    }
}

#[tokio::test]
async fn of_two_revocations_at_once_the_first_counts() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let (key, _) = fixture.key(&project).await;
    let revoke = |now| {
        let (accounts, by) = (Arc::clone(&fixture.accounts), By::gateway(now));
        let (project_id, key_id) = (project.id.clone(), key.id.clone());
        async move { accounts.revoke_key(&project_id, &key_id, &by).await }
    };
    let (first, second) = tokio::join!(revoke(NOW), revoke(NOW.plus_nanos(1)));
    assert!(first.unwrap() && !second.unwrap());
    assert_eq!(fixture.accounts.key(&key.id).unwrap().revoked_at, Some(NOW));
}

#[tokio::test]
async fn every_refusal_has_the_same_words() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    let (key, plain) = fixture.key(&project).await;
    fixture.accounts.revoke_key(&project.id, &key.id, &BY).await.unwrap();
    let (_, unknown) = PlainKey::generate(&mut random);
    let injection = "' OR 1=1--";
    for text in [plain.reveal(), unknown.reveal(), injection, "sk-tg_", "", &"x".repeat(10_000), "\u{0}\u{feff}é"] {
        let error = fixture.accounts.authenticate(text, NOW).unwrap_err();
        assert_eq!(error, ApiError::wrong_key(&redact(text)));
        assert!(error.message.len() < 700);
    }
}

#[tokio::test]
async fn keys_need_a_project_that_is_open_and_are_revoked_by_their_own_alone() {
    let mut fixture = Fixture::new().await;
    let (a, b) = (fixture.project("a").await, fixture.project("b").await);
    let (key, plain) = fixture.key(&a).await;
    assert!(!fixture.accounts.revoke_key(&b.id, &key.id, &BY).await.unwrap());
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW).is_ok());
    let nobody = ProjectId::parse("proj_nobody").unwrap();
    let refused = fixture.accounts.create_service_account(&nobody, "a", KeyTerms::default(), &BY).await;
    assert!(matches!(refused, Err(AccountsError::NoSuchProject(_))));
    sqlx::query("UPDATE projects SET archived_at = 1").execute(fixture.accounts.store.writer()).await.unwrap();
    fixture.restart().await;
    let refused = fixture.accounts.create_service_account(&a.id, "a", KeyTerms::default(), &BY).await;
    assert!(matches!(refused, Err(AccountsError::ProjectArchived(_))));
    assert!(fixture.accounts.authenticate(plain.reveal(), NOW).is_err());
}

#[tokio::test]
async fn rows_that_were_tampered_with_stop_the_start() {
    let fixture = Fixture::new().await;
    let project = fixture.project("a").await;
    fixture.key(&project).await;
    for damage in ["limits = '{\"requests_per_minut\":1}'", "limits = 'x'", "id = '../x'"] {
        let mut writing = fixture.accounts.store.writer().begin().await.unwrap();
        let statement = sqlx::AssertSqlSafe(format!("UPDATE api_keys SET {damage}"));
        sqlx::query(statement).execute(&mut *writing).await.unwrap();
        writing.commit().await.unwrap();
        let loaded = Accounts::load(Arc::clone(&fixture.accounts.store), fixture.pepper.clone()).await;
        assert!(loaded.err().unwrap().to_string().contains("api_keys."), "{damage}");
    }
}

#[test]
fn the_decoy_lets_nobody_in() {
    let decoy = Arc::new(decoy());
    assert!(decoy.authenticate(&decoy.hash, NOW).is_none());
    assert!(decoy.authenticate(&KeyHash::from_bytes([0; 32]), NOW).is_none());
}
