//! The pepper that key hashes are made with, and the admin key: taken from the settings, or made at the first start.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    domain::{
        audit::{AuditEvent, By, EventType},
        ids::{AdminKeyId, random_base62},
        keys::{KeyHash, MAX_CREDENTIAL_LENGTH, Pepper, redact},
        time::UnixNanos,
    },
    store::{
        Store, StoreError,
        accounts::{self, AdminKeyRow},
    },
};

const PEPPER_FILE: &str = "pepper";
const PEPPER_BYTES: usize = 32;
/// Shorter settings can be guessed.
pub const MIN_SETTING_CHARACTERS: usize = 32;
const ADMIN_KEY_PREFIX: &str = "sk-admin-";
const ADMIN_KEY_RANDOM_CHARACTERS: usize = 48;

#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error(
        "the pepper has fewer than {MIN_SETTING_CHARACTERS} characters: set a longer one, or none to have one made"
    )]
    PepperTooShort,
    #[error(
        "{} is missing, but the database has keys that were made with it, and without it no key is accepted. Put the \
         file back from a backup, or set the pepper that was used before",
        .0.display()
    )]
    PepperMissing(PathBuf),
    #[error("{} is not a pepper: 64 hexadecimal digits were expected. Put the file back from a backup", .0.display())]
    PepperUnreadable(PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, #[source] io::Error),
    #[error("the admin key is longer than {MAX_CREDENTIAL_LENGTH} characters: set a shorter one")]
    AdminKeyTooLong,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Random bytes from the operating system.
pub fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("without randomness from the operating system no key may be made");
}

// === the pepper ===

/// The pepper from the setting, else from the file in the data directory, which the first start makes.
pub async fn pepper(setting: Option<&str>, data_dir: &Path, store: &Store) -> Result<Pepper, SecretsError> {
    if let Some(text) = setting {
        let long_enough = text.chars().count() >= MIN_SETTING_CHARACTERS;
        let bytes = || Pepper::from_bytes(Sha256::digest(text.as_bytes()).into());
        return long_enough.then(bytes).ok_or(SecretsError::PepperTooShort);
    }
    let path = data_dir.join(PEPPER_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            warn_if_others_can_read(&path);
            parse_hex(text.trim()).map(Pepper::from_bytes).ok_or(SecretsError::PepperUnreadable(path))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if accounts::has_keys(store).await? {
                return Err(SecretsError::PepperMissing(path));
            }
            make_pepper(&path).map_err(|error| SecretsError::File(path, error))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(SecretsError::PepperUnreadable(path)),
        Err(error) => Err(SecretsError::File(path, error)),
    }
}

/// Under its final name the file is whole and on the disk: keys made a moment later depend on it for ever.
fn make_pepper(path: &Path) -> io::Result<Pepper> {
    let mut bytes = [0; PEPPER_BYTES];
    random(&mut bytes);
    let unfinished = path.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    writeln!(file, "{}", hex(&bytes))?;
    file.sync_all()?;
    // Unlike a rename, a link fails when another process has just put its pepper there; some file systems have no links.
    match fs::hard_link(&unfinished, path) {
        Ok(()) => fs::remove_file(&unfinished)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) => fs::rename(&unfinished, path)?,
    }
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(Pepper::from_bytes(bytes))
}

fn warn_if_others_can_read(path: &Path) {
    let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode() & 0o777);
    if let Ok(mode) = mode
        && mode & 0o077 != 0
    {
        let (path, mode) = (path.display(), format!("{mode:o}"));
        tracing::warn!(%path, mode, "other users of this machine can read the pepper; make it mode 600");
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn parse_hex(text: &str) -> Option<[u8; PEPPER_BYTES]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect();
    (digits.len() == 2 * PEPPER_BYTES).then(|| bytes.try_into().ok())?
}

// === admin keys ===

/// The keys that open the admin side, as hashes.
#[derive(Debug)]
pub struct AdminKeys {
    pepper: Pepper,
    keys: Vec<(AdminKeyId, KeyHash)>,
}

/// An admin key made just now. Show it: it is nowhere else.
pub struct PlainAdminKey(String);

impl PlainAdminKey {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlainAdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainAdminKey(hidden)")
    }
}

impl AdminKeys {
    /// A configured key is the admin key, and the only one. Without one, the first start makes one and hands it out
    /// once; later starts know it by its hash.
    pub async fn load(
        configured: Option<&str>,
        pepper: Pepper,
        store: &Store,
        now: UnixNanos,
    ) -> Result<(Self, Option<PlainAdminKey>), SecretsError> {
        if let Some(key) = configured {
            if key.len() > MAX_CREDENTIAL_LENGTH {
                return Err(SecretsError::AdminKeyTooLong);
            }
            return Ok((Self { keys: vec![(AdminKeyId::configured(), KeyHash::of(key, &pepper))], pepper }, None));
        }
        let keys = accounts::admin_keys(store).await?;
        if !keys.is_empty() {
            return Ok((Self { pepper, keys }, None));
        }
        let plain = format!("{ADMIN_KEY_PREFIX}{}", random_base62(ADMIN_KEY_RANDOM_CHARACTERS, &mut random));
        let hash = KeyHash::of(&plain, &pepper);
        let row = AdminKeyRow {
            id: AdminKeyId::generate(&mut random),
            name: "made at the first start".to_owned(),
            hash,
            redacted_value: redact(&plain),
            created_at: now,
        };
        let event = AuditEvent::new(EventType::ApiKeyCreated, &By::gateway(now), row.id.as_str())
            .after(&serde_json::json!({ "name": row.name, "redacted_value": row.redacted_value }));
        accounts::insert_admin_key(store, &row, &event).await?;
        Ok((Self { pepper, keys: vec![(row.id, hash)] }, Some(PlainAdminKey(plain))))
    }

    /// Which admin key this is. Takes the same time for every credential of one length: none of the comparisons stops
    /// early.
    pub fn verify(&self, credential: &str) -> Option<AdminKeyId> {
        if credential.len() > MAX_CREDENTIAL_LENGTH {
            return None;
        }
        let presented = KeyHash::of(credential, &self.pepper);
        let matching = |found, (id, hash): &'_ (AdminKeyId, KeyHash)| {
            if hash.matches(&presented) { Some(id.clone()) } else { found }
        };
        self.keys.iter().fold(None, matching)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn started() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("tollgate.db")).await.unwrap();
        (directory, store)
    }

    fn hashed(pepper: &Pepper) -> [u8; 32] {
        *KeyHash::of("x", pepper).as_bytes()
    }

    #[tokio::test]
    async fn a_pepper_is_made_once_for_this_user_alone_and_found_again() {
        let (directory, store) = started().await;
        let first = pepper(None, directory.path(), &store).await.unwrap();
        let second = pepper(None, directory.path(), &store).await.unwrap();
        assert_eq!(hashed(&first), hashed(&second));
        let mode = fs::metadata(directory.path().join("pepper")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (other, store) = started().await;
        assert_ne!(hashed(&first), hashed(&pepper(None, other.path(), &store).await.unwrap()));
    }

    #[tokio::test]
    async fn a_lost_or_damaged_pepper_stops_the_start_and_names_the_file() {
        let (directory, store) = started().await;
        let path = directory.path().join("pepper");
        let made = pepper(None, directory.path(), &store).await.unwrap();
        AdminKeys::load(None, made, &store, UnixNanos(1)).await.unwrap();
        fs::remove_file(&path).unwrap();
        let error = pepper(None, directory.path(), &store).await.unwrap_err();
        assert!(matches!(error, SecretsError::PepperMissing(_)));
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        for damaged in ["", "12ab", &"g".repeat(64), &"a".repeat(66)] {
            fs::write(&path, damaged).unwrap();
            let error = pepper(None, directory.path(), &store).await.unwrap_err();
            assert!(matches!(error, SecretsError::PepperUnreadable(_)), "{damaged:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_pepper_setting_replaces_the_file_and_must_be_long() {
        let (directory, store) = started().await;
        let setting = "0123456789abcdef0123456789abcdef";
        let first = pepper(Some(setting), directory.path(), &store).await.unwrap();
        let second = pepper(Some(setting), directory.path(), &store).await.unwrap();
        assert_eq!(hashed(&first), hashed(&second));
        assert!(!directory.path().join("pepper").exists());
        let short = pepper(Some(&setting[1..]), directory.path(), &store).await;
        assert!(matches!(short, Err(SecretsError::PepperTooShort)));
    }

    #[tokio::test]
    async fn an_admin_key_is_made_and_shown_once_and_known_later() {
        let (_directory, store) = started().await;
        let pepper = Pepper::from_bytes([7; 32]);
        let (keys, plain) = AdminKeys::load(None, pepper.clone(), &store, UnixNanos(1)).await.unwrap();
        let plain = plain.unwrap();
        assert!(plain.reveal().starts_with("sk-admin-") && plain.reveal().len() == 57);
        assert!(!format!("{keys:?} {plain:?}").contains(&plain.reveal()[9..]));
        assert!(keys.verify(plain.reveal()).is_some());
        let (later, shown) = AdminKeys::load(None, pepper, &store, UnixNanos(2)).await.unwrap();
        assert!(shown.is_none());
        assert!(later.verify(plain.reveal()).is_some());
        for wrong in ["", "sk-admin-", &plain.reveal()[..56], &"s".repeat(300)] {
            assert!(later.verify(wrong).is_none());
        }
    }

    #[tokio::test]
    async fn a_configured_admin_key_is_the_only_one() {
        let (_directory, store) = started().await;
        let pepper = Pepper::from_bytes([7; 32]);
        let (_, made) = AdminKeys::load(None, pepper.clone(), &store, UnixNanos(1)).await.unwrap();
        let configured = "an admin key that a person has chosen";
        let (keys, shown) = AdminKeys::load(Some(configured), pepper, &store, UnixNanos(2)).await.unwrap();
        assert!(shown.is_none());
        assert_eq!(keys.verify(configured), Some(AdminKeyId::configured()));
        assert!(keys.verify(made.unwrap().reveal()).is_none());
    }

    #[tokio::test]
    async fn a_stored_admin_hash_opens_nothing() {
        let (_directory, store) = started().await;
        let (keys, _) = AdminKeys::load(None, Pepper::from_bytes([7; 32]), &store, UnixNanos(1)).await.unwrap();
        let stored = accounts::admin_keys(&store).await.unwrap();
        assert!(keys.verify(&hex(stored[0].1.as_bytes())).is_none());
    }
}
