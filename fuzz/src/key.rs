//! Credentials: only what was issued is taken, and what is shown of one cannot be used.

use tollgate::domain::{
    ids::{AdminKeyId, KeyId, ProjectId, RequestId, ServiceAccountId},
    keys::{KeyHash, MAX_CREDENTIAL_LENGTH, Pepper, PlainKey, redact},
};

pub fn key(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    presented(&text);
    let mut draws = 0_u64;
    let mut random = |bytes: &mut [u8]| {
        draws += 1;
        for (at, byte) in bytes.iter_mut().enumerate() {
            let drawn = data.get(at % data.len().max(1)).copied().unwrap_or(0);
            // Whatever the data, more draws bring all values.
            *byte = drawn.wrapping_add((draws * 31 + at as u64).to_le_bytes()[0]);
        }
    };
    let (id, key) = PlainKey::generate(&mut random);
    let text = key.reveal().to_owned();
    presented(&text);
    let (read, again) = PlainKey::parse(&text).expect("what was issued is taken");
    assert_eq!((read, again.reveal()), (id, text.as_str()));
    let at = data.first().map_or(0, |byte| usize::from(*byte) % text.len());
    let with = data.last().map_or('x', |byte| char::from(byte & 0x7F));
    let changed: String = text.chars().enumerate().map(|(place, old)| if place == at { with } else { old }).collect();
    assert!(changed == text || PlainKey::parse(&changed).is_none(), "{changed} is taken");
}

fn presented(text: &str) {
    if let Some((id, key)) = PlainKey::parse(text) {
        assert!(text.len() <= MAX_CREDENTIAL_LENGTH && key.reveal() == text);
        assert!(KeyId::parse(id.as_str()) == Some(id));
        assert_eq!(key.redacted(), redact(text));
        let hash = key.hash(&Pepper::from_bytes([7; 32]));
        assert!(hash.matches(&KeyHash::from_bytes(*hash.as_bytes())));
    }
    let shown = redact(text);
    let told = shown.chars().filter(|character| *character != '*').count();
    assert!(told <= 12 && shown.chars().count() <= MAX_CREDENTIAL_LENGTH, "{shown}");
    assert!(!shown.chars().any(char::is_control));
    if let Some(id) = RequestId::parse(text) {
        assert_eq!(id.to_string(), text);
        assert_eq!(RequestId::from_bytes(id.to_bytes()), id);
        assert!(id.successor() >= id && RequestId::earliest(id.arrived_ms()) <= id);
        id.arrived_at();
    }
    let same = |id: Option<&str>| assert!(id.is_none_or(|id| id == text && id.len() <= 64));
    same(KeyId::parse(text).as_ref().map(KeyId::as_str));
    same(ProjectId::parse(text).as_ref().map(ProjectId::as_str));
    same(AdminKeyId::parse(text).as_ref().map(AdminKeyId::as_str));
    same(ServiceAccountId::parse(text).as_ref().map(ServiceAccountId::as_str));
}
