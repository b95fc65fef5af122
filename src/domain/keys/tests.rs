use super::*;
use crate::domain::{
    ids::{ProjectId, ServiceAccountId},
    projects::{ProjectTerms, Role, TierId},
};

fn random() -> impl FnMut(&mut [u8]) {
    let mut state = 0x1234_5678_u32;
    move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
    }
}

fn issued() -> (Arc<ApiKey>, PlainKey, Pepper) {
    let pepper = Pepper::from_bytes([7; 32]);
    let (id, plain) = PlainKey::generate(&mut random());
    let project = Project {
        id: ProjectId::parse("proj_a").unwrap(),
        name: "a".into(),
        tier: TierId::from("tier1"),
        automatic_tier: true,
        terms: ProjectTerms::default(),
        created_at: UnixNanos(0),
        archived_at: None,
    };
    let account = ServiceAccount {
        id: ServiceAccountId::parse("sa_a").unwrap(),
        project_id: project.id.clone(),
        name: "a".into(),
        role: Role::Member,
        created_at: UnixNanos(0),
        deleted_at: None,
    };
    let key = ApiKey {
        id,
        service_account: Arc::new(account),
        project: Arc::new(project),
        name: "a".into(),
        hash: plain.hash(&pepper),
        previous: None,
        redacted_value: plain.redacted(),
        terms: KeyTerms { expires_at: Some(UnixNanos(100)), ..KeyTerms::default() },
        created_at: UnixNanos(0),
        revoked_at: None,
        last_used: LastUsed::default(),
    };
    (Arc::new(key), plain, pepper)
}

#[test]
fn a_key_names_itself_and_proves_itself() {
    let (key, plain, pepper) = issued();
    assert!(plain.reveal().starts_with("sk-tg_"));
    let (id, presented) = PlainKey::parse(plain.reveal()).unwrap();
    assert_eq!(id, key.id);
    assert!(key.authenticate(&presented.hash(&pepper), UnixNanos(1)).is_some());
}

#[test]
fn one_wrong_character_is_refused_without_a_look_up() {
    let (_, plain, _) = issued();
    for position in 0..plain.reveal().len() {
        let mut bytes = plain.reveal().as_bytes().to_vec();
        bytes[position] = if bytes[position] == b'x' { b'y' } else { b'x' };
        assert!(PlainKey::parse(std::str::from_utf8(&bytes).unwrap()).is_none(), "position {position}");
    }
    for text in ["", "sk-", "sk-tg_", "sk-tg__", "' OR 1=1--", "sk-tg_\u{e9}", &"s".repeat(300)] {
        assert!(PlainKey::parse(text).is_none());
    }
}

#[test]
fn expired_revoked_archived_and_foreign_keys_are_refused_alike() {
    let (key, plain, pepper) = issued();
    let hash = plain.hash(&pepper);
    assert!(key.authenticate(&hash, UnixNanos(100)).is_none());
    assert!(key.authenticate(&plain.hash(&Pepper::from_bytes([8; 32])), UnixNanos(1)).is_none());
    let revoked = Arc::new(ApiKey { revoked_at: Some(UnixNanos(5)), ..(*key).clone() });
    assert!(revoked.authenticate(&hash, UnixNanos(1)).is_none());
    let archived = Project { archived_at: Some(UnixNanos(1)), ..(*key.project).clone() };
    let orphan = Arc::new(ApiKey { project: Arc::new(archived), ..(*key).clone() });
    assert!(orphan.authenticate(&hash, UnixNanos(1)).is_none());
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let (key, plain, pepper) = issued();
    let shown = format!("{key:?} {plain:?} {pepper:?}");
    assert!(!shown.contains(plain.reveal()));
    assert!(!shown.contains(&plain.reveal()[20..]));
    assert!(shown.contains("PlainKey(hidden)"));
}

#[test]
fn a_wrong_key_is_echoed_with_stars() {
    assert_eq!(redact("sk-proj-abcdefghijk9900"), "sk-proj-***********9900");
    assert_eq!(redact("short"), "sh***");
    assert_eq!(redact(""), "");
}

#[test]
fn a_key_has_a_prefix_that_clients_accept_a_public_id_190_bits_of_secret_and_a_checksum() {
    let (id, plain) = PlainKey::generate(&mut random());
    let (public, secret) = plain.reveal().strip_prefix("sk-tg_").unwrap().split_once('_').unwrap();
    assert!(plain.reveal().starts_with("sk-"));
    assert_eq!(id.as_str(), format!("key_{public}"));
    let (secret, checksum) = secret.split_at(SECRET_LENGTH);
    assert_eq!(checksum.len(), 6);
    // 62^32 > 2^190, in whole numbers: 62^8 > 2^47.5, so that 62^16 > 2^95 and the square of that > 2^190.
    assert!(secret.bytes().all(|c| c.is_ascii_alphanumeric()) && 62_u128.pow(16) > 1 << 95);
    assert_eq!(SECRET_LENGTH, 32);
    let body = &plain.reveal()[..plain.reveal().len() - 6];
    assert_eq!(checksum, fixed_base62(crc32fast::hash(body.as_bytes()), 6));
}

#[test]
fn a_renewed_key_keeps_its_id_and_gets_another_secret() {
    let mut random = random();
    let (id, first) = PlainKey::generate(&mut random);
    let second = PlainKey::renew(&id, &mut random);
    assert_ne!(first.reveal(), second.reveal());
    assert_eq!(PlainKey::parse(second.reveal()).unwrap().0, id);
}

#[test]
fn the_secret_from_before_a_rotation_opens_until_its_end() {
    let (key, plain, pepper) = issued();
    let old = plain.hash(&pepper);
    let new = PlainKey::renew(&key.id, &mut random()).hash(&pepper);
    let previous = Some(PreviousSecret { hash: old, expires_at: UnixNanos(50) });
    let rotated = Arc::new(ApiKey { hash: new, previous, ..(*key).clone() });
    assert!(rotated.authenticate(&new, UnixNanos(60)).is_some());
    assert!(rotated.authenticate(&old, UnixNanos(49)).is_some());
    assert!(rotated.authenticate(&old, UnixNanos(50)).is_none());
    assert!(rotated.authenticate(&KeyHash::from_bytes([0; 32]), UnixNanos(1)).is_none());
}

#[test]
fn only_a_use_that_succeeds_counts_as_a_use() {
    let (key, plain, pepper) = issued();
    let now = UnixNanos::from_seconds(7);
    let open = Arc::new(ApiKey { terms: KeyTerms::default(), ..(*key).clone() });
    assert!(open.authenticate(&KeyHash::from_bytes([0; 32]), now).is_none());
    assert_eq!(open.last_used.seconds(), None);
    assert!(open.authenticate(&plain.hash(&pepper), now).is_some());
    assert_eq!(open.last_used.seconds(), Some(7));
}
