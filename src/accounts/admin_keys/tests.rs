use super::*;
use crate::domain::audit::Actor;

const NOW: UnixNanos = UnixNanos::from_seconds(1_000);
const CONFIGURED: &str = "an admin key that a person has chosen";

struct Fixture {
    _directory: tempfile::TempDir,
    store: Arc<Store>,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join("tollgate.db")).await.unwrap());
        Self { _directory: directory, store }
    }

    async fn start(&self, configured: Option<&str>, now: UnixNanos) -> (Arc<AdminKeys>, Option<PlainAdminKey>) {
        let started = self.start_and_die(configured, now).await;
        started.0.keep_new().await.unwrap();
        started
    }

    /// Killed before anybody was shown anything.
    async fn start_and_die(&self, configured: Option<&str>, now: UnixNanos) -> (Arc<AdminKeys>, Option<PlainAdminKey>) {
        let pepper = Pepper::from_bytes([7; 32]);
        AdminKeys::load(configured, pepper, Arc::clone(&self.store), now).await.unwrap()
    }
}

fn by(id: &AdminKeyId) -> By {
    By { actor: Actor::AdminKey(id.clone()), at: NOW }
}

#[tokio::test]
async fn a_key_that_nobody_was_shown_is_made_again() {
    let fixture = Fixture::new().await;
    let (_, unseen) = fixture.start_and_die(None, NOW).await;
    let (keys, shown) = fixture.start(None, NOW).await;
    assert!(keys.authenticate(shown.unwrap().reveal(), NOW).is_some());
    assert_eq!(keys.authenticate(unseen.unwrap().reveal(), NOW), None);
}

#[tokio::test]
async fn an_admin_key_is_made_and_shown_once_and_known_later() {
    let fixture = Fixture::new().await;
    let (keys, plain) = fixture.start(None, NOW).await;
    let plain = plain.unwrap();
    assert!(plain.reveal().starts_with("sk-admin-") && plain.reveal().len() == 57);
    assert!(!format!("{:?} {plain:?}", keys.list()).contains(&plain.reveal()[9..]));
    let id = keys.authenticate(plain.reveal(), NOW).unwrap();
    let (later, shown) = fixture.start(None, NOW.plus_nanos(1)).await;
    assert!(shown.is_none());
    assert_eq!(later.authenticate(plain.reveal(), NOW), Some(id));
    for wrong in ["", "sk-admin-", &plain.reveal()[..56], &"s".repeat(300)] {
        assert!(later.authenticate(wrong, NOW).is_none());
    }
}

#[tokio::test]
async fn a_configured_key_works_beside_those_that_were_made_and_is_not_stored() {
    let fixture = Fixture::new().await;
    let (_, first) = fixture.start(None, NOW).await;
    let (keys, shown) = fixture.start(Some(CONFIGURED), NOW).await;
    assert!(shown.is_none());
    let id = keys.authenticate(CONFIGURED, NOW).unwrap();
    assert!(keys.find(&id).unwrap().is_configured());
    assert!(keys.authenticate(first.unwrap().reveal(), NOW).is_some());
    let (_, made) = keys.create("robot", None, &by(&id)).await.unwrap();
    assert!(keys.authenticate(made.reveal(), NOW).is_some());
    assert!(matches!(keys.delete(&id, &by(&id)).await, Err(AdminKeyError::Configured(_))));
    let (without, _) = fixture.start(None, NOW).await;
    assert!(without.authenticate(CONFIGURED, NOW).is_none());
    assert_eq!(without.list().len(), 2);
    assert!(without.authenticate(made.reveal(), NOW).is_some());
}

#[tokio::test]
async fn a_deleted_key_is_refused_at_once_and_after_a_restart() {
    let fixture = Fixture::new().await;
    let (keys, first) = fixture.start(None, NOW).await;
    let first = keys.authenticate(first.unwrap().reveal(), NOW).unwrap();
    let (second, plain) = keys.create("second", None, &by(&first)).await.unwrap();
    assert!(keys.authenticate(plain.reveal(), NOW).is_some());
    keys.delete(&second.id, &by(&first)).await.unwrap();
    assert!(keys.authenticate(plain.reveal(), NOW).is_none());
    assert!(matches!(keys.delete(&second.id, &by(&first)).await, Err(AdminKeyError::NoSuchKey(_))));
    let (later, _) = fixture.start(None, NOW).await;
    assert!(later.authenticate(plain.reveal(), NOW).is_none());
}

#[tokio::test]
async fn the_last_key_that_works_cannot_be_deleted() {
    let fixture = Fixture::new().await;
    let (keys, first) = fixture.start(None, NOW).await;
    let first = keys.authenticate(first.unwrap().reveal(), NOW).unwrap();
    assert!(matches!(keys.delete(&first, &by(&first)).await, Err(AdminKeyError::LastUsable(_))));
    let (expired, _) = keys.create("expired", Some(NOW), &by(&first)).await.unwrap();
    assert!(matches!(keys.delete(&first, &by(&first)).await, Err(AdminKeyError::LastUsable(_))));
    keys.delete(&expired.id, &by(&first)).await.unwrap();
    let (second, _) = keys.create("second", None, &by(&first)).await.unwrap();
    keys.delete(&first, &by(&second.id)).await.unwrap();
    assert!(matches!(keys.delete(&second.id, &by(&second.id)).await, Err(AdminKeyError::LastUsable(_))));
}

#[tokio::test]
async fn an_expired_key_is_refused_and_when_none_is_left_a_start_makes_one() {
    let fixture = Fixture::new().await;
    let (keys, first) = fixture.start(Some(CONFIGURED), NOW).await;
    assert!(first.is_none());
    let end = NOW.plus_nanos(10);
    let (_, plain) = keys.create("short", Some(end), &by(&AdminKeyId::configured())).await.unwrap();
    assert!(keys.authenticate(plain.reveal(), NOW.plus_nanos(9)).is_some());
    assert!(keys.authenticate(plain.reveal(), end).is_none());
    assert!(fixture.start(None, NOW).await.1.is_none(), "one works yet");
    let (keys, made) = fixture.start(None, end).await;
    assert!(keys.authenticate(made.unwrap().reveal(), end).is_some());
}

#[tokio::test]
async fn a_stored_hash_opens_nothing() {
    let fixture = Fixture::new().await;
    let (keys, _) = fixture.start(None, NOW).await;
    let hash: String =
        sqlx::query_scalar("SELECT lower(hex(hash)) FROM admin_keys").fetch_one(fixture.store.reader()).await.unwrap();
    assert!(keys.authenticate(&hash, NOW).is_none());
}

#[tokio::test]
async fn an_id_from_before_is_read_after_the_upgrade() {
    let fixture = Fixture::new().await;
    let rename = "UPDATE admin_keys SET id = 'adminkey_' || substr(id, 5)";
    fixture.start(None, NOW).await;
    sqlx::query(rename).execute(fixture.store.writer()).await.unwrap();
    let upgrade = include_str!("../../../migrations/0003_management.sql");
    let update = upgrade.lines().find(|line| line.starts_with("UPDATE admin_keys")).unwrap();
    sqlx::query(update).execute(fixture.store.writer()).await.unwrap();
    let (keys, made) = fixture.start(None, NOW).await;
    assert!(made.is_none() && keys.list()[0].id.as_str().starts_with("key_"));
}
