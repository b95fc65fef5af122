//! API keys: their text, what we keep of it, and the proof of who is calling.
//!
//! `sk-tg_<12 public characters>_<32 secret characters><6 checksum characters>`. The public part names the key, the secret
//! has 190 bits, the checksum lets a mistyped or invented key be refused without looking anything up.

mod terms;

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

pub use self::terms::{AllowedModels, KeyTerms, LastUsed, PreviousSecret};

use super::{
    catalog::Named,
    ids::{KeyId, Random, fixed_base62, random_base62},
    projects::{Project, ServiceAccount},
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
        let plain = Self::renew(&id, random);
        (id, plain)
    }

    /// Another text for the key of this id, with a secret of its own.
    pub fn renew(id: &KeyId, random: Random<'_>) -> Self {
        let public = id.as_str().strip_prefix(KeyId::PREFIX).unwrap_or_default();
        let body = format!("{PREFIX}{public}_{}", random_base62(SECRET_LENGTH, random));
        let checksum = fixed_base62(crc32fast::hash(body.as_bytes()), CHECKSUM_LENGTH);
        Self(body + &checksum)
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
    let shown = |from: usize, length: usize| {
        let range = characters.iter().skip(from).take(length);
        range.filter(|c| !c.is_control()).collect::<String>()
    };
    format!("{}{}{}", shown(0, head), "*".repeat(stars), shown(head + stars, tail))
}

impl KeyHash {
    /// The keyed hash of any credential text; admin keys use it too.
    pub fn of(credential: &str, pepper: &Pepper) -> Self {
        // HMAC pads a short key with zeros to the block size; done here, it cannot fail.
        let mut block = [0_u8; 64];
        for (place, byte) in block.iter_mut().zip(pepper.0) {
            *place = byte;
        }
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
    pub service_account: Arc<ServiceAccount>,
    pub project: Arc<Project>,
    pub name: String,
    pub hash: KeyHash,
    pub previous: Option<PreviousSecret>,
    pub redacted_value: String,
    pub terms: KeyTerms,
    pub created_at: UnixNanos,
    pub revoked_at: Option<UnixNanos>,
    pub last_used: LastUsed,
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

    /// Whether the model called `requested` may be called, by the key's terms and the project's; `named` is what the catalog
    /// has under that name. [`super::catalog::Catalog::may_use`] asks the tier too.
    pub fn may_use(&self, requested: &str, named: Option<&Named<'_>>) -> bool {
        let (key, project) = (&self.key.terms.allowed_models, &self.key.project.terms.model_permissions);
        let page = named.map(|named| named.model.id.as_ref());
        let stands_for = named.map(|named| named.billed_name().as_ref());
        key.as_ref().is_none_or(|allowed| allowed.allows(requested, page))
            && project.as_ref().is_none_or(|permissions| permissions.allow(requested, page, stands_for))
    }
}

impl ApiKey {
    /// `None` unless the hash is this key's and the key is in force. The same answer for every reason, after two
    /// comparisons whether or not there was a rotation.
    pub fn authenticate(self: &Arc<Self>, presented: &KeyHash, now: UnixNanos) -> Option<Caller> {
        let (previous, previous_ends) =
            self.previous.as_ref().map_or((&self.hash, UnixNanos(0)), |previous| (&previous.hash, previous.expires_at));
        let (newest, earlier) = (self.hash.matches(presented), previous.matches(presented));
        let genuine = newest || (earlier && previous_ends > now);
        let expired = self.terms.expires_at.is_some_and(|at| at <= now);
        let closed = self.revoked_at.is_some() || self.project.archived_at.is_some();
        (genuine && !expired && !closed).then(|| {
            self.last_used.mark(now);
            Caller { key: Arc::clone(self) }
        })
    }
}

#[cfg(test)]
mod tests;
