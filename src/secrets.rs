//! The pepper that key hashes are made with, taken from the settings or made at the first start; and randomness.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{
    domain::keys::{MAX_CREDENTIAL_LENGTH, Pepper},
    store::{Store, StoreError, accounts},
};

const PEPPER_FILE: &str = "pepper";
const PEPPER_BYTES: usize = 32;
/// Shorter settings can be guessed.
pub const MIN_SETTING_CHARACTERS: usize = 32;

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
#[expect(clippy::expect_used, reason = "going on would make keys that can be guessed")]
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
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | digit)).collect();
    (digits.len() == 2 * PEPPER_BYTES).then(|| bytes.try_into().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::keys::KeyHash;

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
        let hash = KeyHash::of("a key", &made);
        let key =
            "INSERT INTO admin_keys (id, name, hash, redacted_value, created_at) VALUES ('key_a', 'a', ?, 'a', 1)";
        sqlx::query(key).bind(hash.as_bytes().as_slice()).execute(store.writer()).await.unwrap();
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
}
