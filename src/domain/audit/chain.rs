//! The seals of the audit log.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::domain::time::UnixNanos;

/// What the first row's hash starts from, and the format of what is hashed.
const FORMAT: &[u8] = b"tollgate audit log 1";

/// The seal of a row: SHA-256 over the seal before it and the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHash([u8; 32]);

impl AuditHash {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() || !text.is_ascii() {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        // A sign is no digit, whatever the parser says.
        text.bytes().all(|c| c.is_ascii_hexdigit()).then_some(Self(bytes))
    }
}

impl fmt::Display for AuditHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A row as it is stored. Text stays text: what is hashed is what is there, not what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// From 1 on, without gaps.
    pub number: u64,
    pub event_type: String,
    pub actor: String,
    pub effective_at: UnixNanos,
    pub object_id: String,
    pub project_id: Option<String>,
    pub project_name: Option<String>,
    /// JSON.
    pub before: Option<String>,
    pub after: Option<String>,
    pub hash: AuditHash,
}

impl AuditRow {
    const ID_PREFIX: &str = "audit_log-";

    /// The row's public name: its number and the first digits of its hash, so that a row of another history (a database put
    /// back from a copy, say) has another name.
    pub fn id(&self) -> String {
        let hash = self.hash.to_string();
        format!("{}{}_{}", Self::ID_PREFIX, self.number, hash.get(..8).unwrap_or(&hash))
    }

    /// The number in an id. Whether the row of that number has that id is another question.
    pub fn number_of(id: &str) -> Option<u64> {
        let (number, _) = id.strip_prefix(Self::ID_PREFIX)?.split_once('_')?;
        number.parse().ok()
    }

    /// The hash that this row must have after `previous`.
    pub fn seal(&self, previous: &AuditHash) -> AuditHash {
        let mut hasher = Sha256::new();
        hasher.update(FORMAT);
        hasher.update(previous.0);
        hasher.update(self.number.to_be_bytes());
        hasher.update(self.effective_at.0.to_be_bytes());
        let (required, optional) = (
            [&self.event_type, &self.actor, &self.object_id].map(Some),
            [&self.project_id, &self.project_name, &self.before, &self.after].map(Option::as_ref),
        );
        for field in required.into_iter().chain(optional) {
            // Each with its length, so that no two rows are written alike.
            match field {
                None => hasher.update([0]),
                Some(text) => {
                    hasher.update([1]);
                    hasher.update((text.len() as u64).to_be_bytes());
                    hasher.update(text.as_bytes());
                }
            }
        }
        AuditHash(hasher.finalize().into())
    }
}

/// A walk along the log from its first row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    pub rows: u64,
    /// The hash of the last row; all zeros before the first.
    pub head: AuditHash,
}

/// The first row that is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    pub number: u64,
    pub by: BrokenBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenBy {
    /// Another row stands where this one is expected.
    Missing,
    /// Its content does not match its hash, or its hash not the one before.
    Altered,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            BrokenBy::Missing => write!(f, "row {} is missing", self.number),
            BrokenBy::Altered => write!(f, "row {} is not as it was written", self.number),
        }
    }
}

impl Chain {
    pub const START: Self = Self { rows: 0, head: AuditHash([0; 32]) };

    /// The row that may come next.
    pub const fn next_number(&self) -> u64 {
        self.rows.saturating_add(1)
    }

    /// One row further, or why not.
    pub fn follow(&mut self, row: &AuditRow) -> Result<(), Broken> {
        let number = self.next_number();
        if row.number != number {
            return Err(Broken { number, by: BrokenBy::Missing });
        }
        if row.seal(&self.head) != row.hash {
            return Err(Broken { number, by: BrokenBy::Altered });
        }
        *self = Self { rows: number, head: row.hash };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(length: u64) -> Vec<AuditRow> {
        let mut chain = Chain::START;
        let row = |number| {
            let mut row = AuditRow {
                number,
                event_type: "project.updated".into(),
                actor: "key_a".into(),
                effective_at: UnixNanos(number),
                object_id: "proj_a".into(),
                project_id: Some("proj_a".into()),
                project_name: Some("a".into()),
                before: Some("{}".into()),
                after: None,
                hash: chain.head,
            };
            row.hash = row.seal(&chain.head);
            chain.follow(&row).unwrap();
            row
        };
        (1..=length).map(row).collect()
    }

    fn walk(rows: &[AuditRow]) -> Result<Chain, Broken> {
        let mut chain = Chain::START;
        rows.iter().try_for_each(|row| chain.follow(row)).map(|()| chain)
    }

    #[test]
    fn a_log_as_it_was_written_holds() {
        let rows = log(3);
        assert_eq!(walk(&rows), Ok(Chain { rows: 3, head: rows[2].hash }));
        assert_eq!(walk(&[]), Ok(Chain::START));
    }

    #[test]
    fn a_change_of_any_field_breaks_the_log_at_its_row() {
        let changes: [fn(&mut AuditRow); 10] = [
            |row| row.event_type.push('x'),
            |row| row.actor = "key_b".into(),
            |row| row.effective_at = UnixNanos(0),
            |row| row.object_id.clear(),
            |row| row.project_id = None,
            |row| row.project_name = Some("b".into()),
            |row| row.before = Some("{ }".into()),
            |row| row.after = Some(String::new()),
            |row| row.hash = AuditHash([0; 32]),
            // The same characters, divided in another way.
            |row| (row.actor, row.object_id) = ("key_aproj_a".into(), String::new()),
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut rows = log(3);
            change(&mut rows[1]);
            assert_eq!(walk(&rows), Err(Broken { number: 2, by: BrokenBy::Altered }), "change {index}");
        }
    }

    #[test]
    fn a_row_taken_out_put_in_or_moved_breaks_the_log() {
        let rows = log(4);
        let without = [&rows[..1], &rows[2..]].concat();
        assert_eq!(walk(&without), Err(Broken { number: 2, by: BrokenBy::Missing }));
        let mut renumbered = without;
        renumbered[1].number = 2;
        assert_eq!(walk(&renumbered), Err(Broken { number: 2, by: BrokenBy::Altered }));
        let twice = [&rows[..2], &rows[1..]].concat();
        assert_eq!(walk(&twice).unwrap_err().number, 3);
    }

    #[test]
    fn a_row_sealed_anew_breaks_the_next_one() {
        let mut rows = log(3);
        rows[1].actor = "key_b".into();
        rows[1].hash = rows[1].seal(&rows[0].hash);
        assert_eq!(walk(&rows), Err(Broken { number: 3, by: BrokenBy::Altered }));
    }

    #[test]
    fn hashes_and_ids_survive_a_round_trip() {
        let row = log(12).remove(11);
        let text = row.hash.to_string();
        assert_eq!(AuditHash::parse(&text), Some(row.hash));
        assert_eq!(AuditHash::parse(&text.to_uppercase()), Some(row.hash));
        for wrong in ["", &text[1..], &"+1".repeat(32), &"zz".repeat(32)] {
            assert_eq!(AuditHash::parse(wrong), None);
        }
        assert_eq!(row.id(), format!("audit_log-12_{}", &text[..8]));
        assert_eq!(AuditRow::number_of(&row.id()), Some(12));
        assert_eq!(AuditRow::number_of("audit_log-x"), None);
    }
}
