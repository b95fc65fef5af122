//! API keys: their text, what we keep of it, and the proof of who is calling.
//!
//! `sk-tg_<12 public characters>_<32 secret characters><6 checksum characters>`. The public part names the key, the secret
//! has 190 bits, the checksum lets a mistyped or invented key be refused without looking anything up.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{
    ids::{KeyId, Random, ServiceAccountId, fixed_base62, random_base62},
    limits::Limits,
    projects::Project,
    time::UnixNanos,
};

/// Clients check for `sk-`; the rest makes our keys recognisable to secret scanners. Never change it: issued keys carry it.
const PREFIX: &str = "sk-tg_";
const SECRET_LENGTH: usize = 32;
const CHECKSUM_LENGTH: usize = 6;
/// Longer credentials are refused before any work is spent on them.
pub const MAX_CREDENTIAL_LENGTH: usize = 256;

/// The secret text of a key. It exists in the answer that created it and in the header that presents it, nowhere else.
pub struct PlainKey(String);

/// What we keep of a key: its HMAC-SHA-256 under the pepper.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

/// The secret that keyed hashes are made with. It lives outside the database, so a stolen database alone matches no key.
#[derive(Clone)]
pub struct Pepper([u8; 32]);

impl PlainKey {
    pub fn generate(random: Random<'_>) -> (KeyId, Self) {
        let id = KeyId::generate(random);
        let public = &id.as_str()[KeyId::PREFIX.len()..];
        let body = format!("{PREFIX}{public}_{}", random_base62(SECRET_LENGTH, random));
        let checksum = fixed_base62(crc32fast::hash(body.as_bytes()), CHECKSUM_LENGTH);
        (id, Self(body + &checksum))
    }

    /// Reads a presented credential. `None` when it cannot be one of ours.
    pub fn parse(text: &str) -> Option<(KeyId, Self)> {
        if text.len() > MAX_CREDENTIAL_LENGTH || !text.is_ascii() {
            return None;
        }
        let (body, checksum) = text.split_at_checked(text.len().checked_sub(CHECKSUM_LENGTH)?)?;
        let (public, secret) = body.strip_prefix(PREFIX)?.split_once('_')?;
        let expected = fixed_base62(crc32fast::hash(body.as_bytes()), CHECKSUM_LENGTH);
        if secret.len() != SECRET_LENGTH || checksum != expected {
            return None;
        }
        let id = KeyId::parse(&format!("{}{public}", KeyId::PREFIX))?;
        Some((id, Self(text.to_owned())))
    }

    pub fn hash(&self, pepper: &Pepper) -> KeyHash {
        KeyHash::of(&self.0, pepper)
    }

    /// The only way to see the text, for the answer that hands it out.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// First characters and last four, as key lists show it.
    pub fn redacted(&self) -> String {
        redact(&self.0)
    }
}

/// A credential made recognisable without being usable: `sk-tg_ab****************************6789`, as `OpenAI` echoes a wrong
/// key (at most the first 8 and the last 4 characters, stars between).
pub fn redact(credential: &str) -> String {
    let characters: Vec<char> = credential.chars().take(MAX_CREDENTIAL_LENGTH).collect();
    let (head, tail) = if characters.len() >= 16 { (8, 4) } else { (characters.len().min(2), 0) };
    let stars = characters.len() - head - tail;
    let shown = |range: &[char]| range.iter().filter(|c| !c.is_control()).collect::<String>();
    format!("{}{}{}", shown(&characters[..head]), "*".repeat(stars), shown(&characters[head + stars..]))
}

impl KeyHash {
    /// The keyed hash of any credential text; admin keys use it too.
    pub fn of(credential: &str, pepper: &Pepper) -> Self {
        // HMAC pads a short key with zeros to the block size; done here, it cannot fail.
        let mut block = [0_u8; 64];
        block[..pepper.0.len()].copy_from_slice(&pepper.0);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(credential.as_bytes());
        Self(mac.finalize().into_bytes().into())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes the same time wherever the two differ.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Pepper {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

macro_rules! hidden_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(hidden)"))
            }
        }
    )*};
}
hidden_debug!(PlainKey, KeyHash, Pepper);

/// An issued key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub id: KeyId,
    pub service_account_id: ServiceAccountId,
    pub project: Arc<Project>,
    pub name: String,
    pub hash: KeyHash,
    pub redacted_value: String,
    /// Narrower limits than the project's tier.
    pub limits: Limits,
    pub created_at: UnixNanos,
    pub expires_at: Option<UnixNanos>,
    pub revoked_at: Option<UnixNanos>,
}

/// Who is calling, proven. Only [`ApiKey::authenticate`] makes one.
#[derive(Clone, Debug)]
pub struct Caller {
    key: Arc<ApiKey>,
}

impl Caller {
    pub fn key(&self) -> &Arc<ApiKey> {
        &self.key
    }

    pub fn project(&self) -> &Project {
        &self.key.project
    }
}

impl ApiKey {
    /// `None` unless the hash is this key's and the key is in force. The same answer for every reason.
    pub fn authenticate(self: &Arc<Self>, presented: &KeyHash, now: UnixNanos) -> Option<Caller> {
        let genuine = self.hash.matches(presented);
        let expired = self.expires_at.is_some_and(|at| at <= now);
        let closed = self.revoked_at.is_some() || self.project.archived_at.is_some();
        (genuine && !expired && !closed).then(|| Caller { key: Arc::clone(self) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ids::ProjectId, projects::TierId};

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
            created_at: UnixNanos(0),
            archived_at: None,
        };
        let key = ApiKey {
            id,
            service_account_id: ServiceAccountId::parse("sa_a").unwrap(),
            project: Arc::new(project),
            name: "a".into(),
            hash: plain.hash(&pepper),
            redacted_value: plain.redacted(),
            limits: Limits::default(),
            created_at: UnixNanos(0),
            expires_at: Some(UnixNanos(100)),
            revoked_at: None,
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
}
