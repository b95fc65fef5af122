//! What is told to a webhook's receiver, and the signature that proves who tells it: that of Standard Webhooks, which the SDKs
//! of `OpenAI` verify.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// One message. Each attempt to deliver it has the same id, by which a receiver knows it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    /// JSON.
    pub body: String,
}

/// What both sides know.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    const PREFIX: &str = "whsec_";
    /// Of what stands behind the prefix, as Standard Webhooks asks for.
    const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

    /// `whsec_` and base64 of 24 to 64 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(Self::PREFIX)?).ok()?;
        Self::BYTES.contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The header `webhook-signature` of a message that is sent at `timestamp_s`, in Unix seconds.
    pub fn sign(&self, event: &Event, timestamp_s: u64) -> String {
        // HMAC pads a short key with zeros to a block of 64 bytes, and no key here is longer.
        let mut block = [0; 64];
        block.iter_mut().zip(&self.0).for_each(|(to, from)| *to = *from);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(format!("{}.{timestamp_s}.", event.id).as_bytes());
        mac.update(event.body.as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification of Standard Webhooks' libraries.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let event = Event { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(), body: r#"{"test": 2432232314}"#.into() };
        assert_eq!(key.sign(&event, 1_614_265_330), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_ne!(key.sign(&event, 1_614_265_331), key.sign(&event, 1_614_265_330));
    }

    #[test]
    fn a_key_is_the_prefix_and_enough_bytes_and_does_not_show_itself() {
        let secret = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        for (text, is_key) in [
            (secret(24), true),
            (secret(64), true),
            (secret(23), false),
            (secret(65), false),
            (secret(32).replace("whsec_", ""), false),
            (secret(32).replace('=', "!"), false),
            (String::new(), false),
        ] {
            assert_eq!(SigningKey::parse(&text).is_some(), is_key, "{text}");
        }
        assert_eq!(format!("{:?}", SigningKey::parse(&secret(24)).unwrap()), "SigningKey(..)");
    }
}
